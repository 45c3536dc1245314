// What a population without recurrence remembers of several windows: chapter 6.
liveFigures.define("windows", ({bySpeed, each, impulse, list, normal, range, total}) => {
	const LONG = 20 // steps of a window
	const TAU_MEM = 4 // steps
	const NOISE = 0.01
	const MOST = 6 // windows

	/** Time constants whose distance from 1 is spaced evenly on a logarithmic scale. */
	function spaced({middle, spread, count}) {
		return list(count, k => 1 + (middle - 1) * spread ** ((2 * k + 1) / count - 1))
	}

	const dot = (x, y) => total(x.map((value, k) => value * y[k]))

	/** Solve equations by elimination; the matrix is positive definite, so no pivot is zero. */
	function solve(matrix, right) {
		const rows = matrix.map((row, k) => [...row, right[k]])
		for (const [k, pivot] of rows.entries())
			for (const row of rows) {
				const share = row === pivot ? 0 : row[k] / pivot[k]
				for (const m of row.keys()) row[m] -= share * pivot[m]
			}
		return rows.map((row, k) => row.at(-1) / row[k])
	}

	/** How often a sum of filters has the sign of a window, over all inputs, with noise on every state. */
	function accuracy(kept, window, noise) {
		const shares = list(2 ** kept.length, input => {
			const signs = kept.map((_, j) => ((input >> j) & 1 ? 1 : -1))
			return normal((signs[window] * dot(kept, signs)) / noise)
		})
		return total(shares) / shares.length
	}

	function* compute(state) {
		const steps = LONG * state.windows
		const taus = spaced(state)
		const filters = yield* each(taus, steps, tau => impulse(1 / TAU_MEM, 1 / tau, steps).voltages)
		const unit = filters.map(f => f.map(value => value / Math.sqrt(dot(f, f))))
		const noise = Math.sqrt(state.count) * NOISE
		// what each state holds of each window, whose input has a sum of squares of 1
		const newest = k => steps - LONG * (k + 1) // windows are numbered from the first, filters go back in time
		const held = unit.map(f => list(state.windows, k => total(f.slice(newest(k), newest(k) + LONG)) / Math.sqrt(LONG)))
		const overlap = held.map((f, i) => held.map((g, j) => dot(f, g) + (i === j ? noise ** 2 : 0)))
		const [sums, accuracies, answers] = [[], [], []]
		for (let k = 0; k < state.windows; k++) {
			const weights = solve(
				overlap,
				held.map(row => row[k])
			)
			const kept = held[0].map((_, j) => total(weights.map((w, i) => w * held[i][j])))
			sums.push(unit[0].map((_, lag) => Math.sqrt(LONG) * total(weights.map((w, i) => w * unit[i][lag]))))
			accuracies.push(accuracy(kept, k, noise * Math.sqrt(dot(weights, weights))))
			answers.push(dot(kept, state.groups))
		}
		const input = list(steps, lag => state.groups[Math.floor((steps - 1 - lag) / LONG)])
		const states = unit.map(f => dot(f, input) / total(f))
		const remembered = total(accuracies.map(share => 2 * share - 1))
		return {taus, filters, sums, accuracies, answers, states, remembered}
	}

	const name = sign => (sign > 0 ? "A" : "B")

	function draw(figure, found) {
		const {state, width, narrow} = figure
		const count = state.windows
		const steps = LONG * count
		const [left, wide] = narrow ? [14, width - 48] : [44, width - 244]
		const time = [-steps, 0]
		const ago = list(steps, lag => -lag - 0.5)

		const block = wide / count
		figure.write(left, 16, "input: press a window to change it", "title")
		figure.blocks = state.groups.slice(0, count).map((sign, k) => {
			const x = left + k * block
			figure.block(x + 1, 30, block - 2, 28, sign > 0 ? "ink" : "muted")
			figure.write(x + block / 2, 49, name(sign), "paper middle")
			return {x, y: 22, width: block}
		})

		const holds = {title: "what each neuron still holds", yTicks: [0, 1]}
		const filters = figure.panel([left, 94, wide, 92], time, [0, 1.05], holds)
		const look = k => bySpeed(found.taus[k], 300)
		for (const [k, f] of found.filters.entries()) {
			const share = value => value / Math.max(...f)
			filters.line(ago, f.map(share), "line", {style: look(k)})
		}

		const top = 228
		const row = (narrow ? 132 : 168) / count
		figure.write(left, top - 9, "best sums, and how often right (%)", "title")
		found.sums.forEach((sum, k) => {
			const y = top + k * row
			const all = [-0.5, 1.5, ...sum]
			const panel = figure.panel([left, y, wide, row - 6], time, [Math.min(...all), Math.max(...all)])
			const from = -steps + k * LONG
			panel.shade([from, from + LONG], [0, 1])
			panel.level(0, "grid")
			panel.line(ago, sum, "line")
			figure.write(left - 4, panel.y(0.2), k + 1, "tick end")
			const [share, given] = [found.accuracies[k], name(found.answers[k])]
			const answer = narrow ? "" : `${given} ${given === name(state.groups[k]) ? "✓" : "✗"} `
			const kind = share > 0.9 ? "" : "muted"
			figure.write(left + wide + 7, panel.y(0.2), answer + Math.round(100 * share), kind)
		})
		const bottom = top + row * count
		figure.panel([left, bottom, wide, 0], time, [0, 1], {xLabel: "steps before the question", yTicks: []})

		const box = narrow ? [left, bottom + 72, wide, 50] : [width - 182, 94, 168, 92]
		const states = figure.panel(box, [-1, 1], [0, state.count], {
			title: "states at the end",
			xTicks: [-1, 0, 1],
			xNames: v => (v ? `all ${name(v)}` : "0"),
			yTicks: []
		})
		states.line([0, 0], [0, state.count], "grid")
		for (const [k, value] of found.states.entries())
			states.line([0, value], [k + 0.5, k + 0.5], "bar", {style: look(k)})
		return bottom + (narrow ? 144 : 40)
	}

	function text({state}, found) {
		const {count, windows} = state
		const taus = range(found.taus).join(" to ")
		const who = count > 1 ? `${count} neurons have` : "One neuron has"
		return (
			`${who} a τ syn of ${taus} steps. In all, a readout remembers ${found.remembered.toFixed(1)} of ${windows} windows: ` +
			"a window counts as 1 if it is right for every input, and as 0 if it is guessed, and right for half of them."
		)
	}

	return {
		label: "Windows of input, the filters of neurons, and what a readout can tell apart at the end",
		controls: [
			{name: "count", label: "neurons", low: 1, high: 8, step: 1, value: 3},
			{name: "windows", label: "windows", low: 2, high: MOST, step: 1, value: 4},
			{name: "middle", label: "middle τ", low: 5, high: 60, log: true, digits: 2, unit: " steps", value: 20},
			{name: "spread", label: "spread (1: equal)", low: 1, high: 10, log: true, digits: 2, value: 7}
		],
		state: {groups: [1, -1, -1, 1, 1, -1]}, // the group of inputs that is active in each window

		presses: figure =>
			list(MOST, k => ({
				label: () => `window ${k + 1}: group ${name(figure.state.groups[k])} is active`,
				press: () => {
					figure.state.groups[k] *= -1
					figure.change()
				},
				place: () => figure.blocks[k]
			})),
		compute,
		draw,
		text
	}
})
