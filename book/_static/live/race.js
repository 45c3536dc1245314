// Seven ways to store one time constant race to a target: chapter 5.
liveFigures.define("race", ({clamp, format, impulse, list, total}) => {
	const DT = 1e-3 // s
	const PULSE = 150 // steps in which the voltage is compared
	const RACE = 120 // steps of the optimiser
	const B = DT * (1 / 5e-3)
	const [LEAST, MOST] = [1e-9, 999.9] // 1/s, of the smooth maps

	/** A smooth map of all numbers into valid rates: a curve, bent at its ends, with its slope. */
	function smooth(curve, slope, inverse) {
		const [first, last, margin] = [inverse(LEAST) + 0.5, inverse(MOST) - 0.5, 0.5]
		return {
			range: [-4, 3],
			inverse,
			of: x => {
				const outside = Math.max(x - last, first - x, 0)
				const share = margin / (margin + outside)
				const bent = clamp(x, first, last) + (x > last ? margin : -margin) * (1 - share)
				return [curve(bent), slope(bent) * share ** 2]
			}
		}
	}
	const exp = x => 100 * Math.exp(x)
	const sigmoid = x => 1 / (1 + Math.exp(-x))
	const cut = x => clamp(x, 1e-3, 0.999)
	const respond = rate => impulse(DT * rate, B, PULSE)
	const raw = {range: [-150, 1150], inverse: rate => rate, of: x => [x, 1]}
	const share = {range: [-0.15, 1.15], inverse: rate => rate * DT}
	// what is stored for a rate, the rate and its slope, and what else a step does
	const MAPS = {
		raw,
		"raw, own rate": {...raw, faster: 100},
		clamp: {...share, of: x => [cut(x) / DT, x >= 1e-3 && x <= 0.999 ? 1 / DT : 0]},
		projection: {...share, of: x => [x / DT, 1 / DT], after: cut},
		softplus: smooth(
			x => 100 * Math.log1p(Math.exp(x)),
			x => 100 * sigmoid(x),
			rate => rate / 100 + Math.log(-Math.expm1(-rate / 100))
		),
		decay: smooth(
			x => sigmoid(x) / DT,
			x => (sigmoid(x) * (1 - sigmoid(x))) / DT,
			rate => Math.log((rate * DT) / (1 - rate * DT))
		),
		log: smooth(exp, exp, rate => Math.log(rate / 100))
	}
	const NAMES = Object.keys(MAPS)
	const range = {low: 3, high: 200, log: true, unit: " ms", digits: 2}

	/** One runner: Adam on what a map stores. A rate that is not valid ends its race. */
	function* run(map, start, wanted, rate) {
		let stored = map.inverse(1000 / start)
		let [mean, square] = [0, 0]
		for (let step = 1; ; step++) {
			const [value, derivative] = map.of(stored)
			yield {value, stored}
			if (!(value > 0 && value < 1000)) return
			const {voltages, derivatives} = respond(value)
			const gradient = derivative * DT * total(voltages.map((v, t) => 2 * (v - wanted[t]) * derivatives[t]))
			mean = mean + (gradient - mean) * (1 - 0.9)
			square = 0.999 * square + (1 - 0.999) * gradient * gradient
			const size = ((map.faster ?? 1) * rate) / (1 - 0.9 ** step)
			stored -= (size * mean) / (Math.sqrt(square) / Math.sqrt(1 - 0.999 ** step) + 1e-8)
			if (map.after) stored = map.after(stored)
		}
	}

	const tau = ({value}) => 1000 / value
	const valid = ({value}) => value > 0 && value < 1000
	const near = (point, target) => valid(point) && Math.abs(tau(point) / target - 1) < 0.05

	function* compute({start, target, rate}, figure) {
		const key = `${start} ${target} ${rate}`
		if (figure.cache.key === key) {
			yield 1 // another one is followed
			return {paths: figure.cache.paths}
		}
		yield PULSE
		const wanted = respond(1000 / target).voltages
		const runners = NAMES.map(name => run(MAPS[name], start, wanted, rate))
		const paths = Object.fromEntries(NAMES.map(name => [name, []]))
		figure.result = {paths, partial: true}
		for (let step = 0; step <= RACE; step++)
			for (const [k, name] of NAMES.entries()) {
				yield PULSE
				const {done, value} = runners[k].next()
				if (!done) paths[name].push(value)
			}
		Object.assign(figure.cache, {key, paths})
		return {paths}
	}

	function draw(figure, {paths}) {
		const {state, narrow} = figure
		const names = 106
		const [left, both, beside] = figure.columns(0.66)
		const wide = both - names
		const race = figure.panel([left, 28, wide, 250], [0, RACE], [1, 2000], {
			ofY: Math.log10,
			title: "time constant (ms)",
			xLabel: "step",
			yTicks: [1, 10, 100, 1000]
		})
		race.level(state.target, "dashed")
		race.text(RACE, state.target, "target", "muted end", -4, state.target > 100 ? -6 : 15)
		for (const name of [...NAMES.filter(other => other !== state.map), state.map]) {
			const path = paths[name]
			const taus = path.map(point => (point.value > 0 ? tau(point) : null))
			race.line([...path.keys()], taus, name === state.map ? "orange line" : "ghost")
			const last = path.findLastIndex(valid)
			if (last >= 0 && last < path.length - 1) race.text(last, taus[last], "✕", "pink middle", 0, 4)
		}
		// names at the ends of lines, pushed apart
		const ends = NAMES.filter(name => paths[name].length).map(name => {
			const last = paths[name].findLast(valid) ?? paths[name][0]
			const y = race.y(tau(last))
			return {name, y, from: y, lost: !valid(paths[name].at(-1))}
		})
		ends.sort((a, b) => a.y - b.y)
		ends.forEach((end, k) => {
			if (k) end.y = Math.max(end.y, ends[k - 1].y + 15)
			const y = Math.min(end.y, 276 - 15 * (ends.length - 1 - k))
			const kind = end.name === state.map ? "orange" : "muted"
			const text = `${end.lost ? "✕ " : ""}${end.name}`
			if (!end.lost) figure.parts.push(`<path class="ghost" d="M${left + wide} ${end.from}l9 ${y - end.from}"/>`)
			figure.write(left + wide + 11, y + 4, text, `label ${kind}`)
		})

		const map = MAPS[state.map]
		const curve = figure.panel(beside(28, 250, 370, 140), map.range, [-150, 1150], {
			title: `rate (1/s) of ${state.map}`,
			xLabel: "what is stored",
			yTicks: [0, 500, 1000]
		})
		curve.shade(map.range, [1000, 1150])
		curve.shade(map.range, [-150, 0])
		const xs = list(121, k => map.range[0] + ((map.range[1] - map.range[0]) * k) / 120)
		curve.line(xs, x => map.of(x)[0], "line")
		curve.level(1000 / state.target, "dashed")
		const inside = paths[state.map].filter(({stored}) => stored >= map.range[0] && stored <= map.range[1])
		for (const {stored, value} of inside) if (Math.abs(value - 500) < 650) curve.dot(stored, value, "orange", 3)
		curve.text(map.range[0], 1000, "grey: not valid", "muted", 6, -2)
		return narrow ? 562 : 318
	}

	function text({state}, {paths}) {
		const path = paths[state.map]
		const [last, {target}] = [path.at(-1), state]
		const arrived = NAMES.filter(name => paths[name].length > RACE && near(paths[name].at(-1), target))
		const there = `Within 5 % of the target: ${arrived.length ? arrived.join(", ") : "none"}.`
		if (!valid(last))
			return `${state.map}: after ${path.length - 1} steps the rate is ${format(last.value)} per second, which is no neuron. ${there}`
		if (near(last, target)) {
			const since = path.findLastIndex(point => !near(point, target)) + 1
			return `${state.map}: there after ${since} steps. ${there}`
		}
		const frozen = path[1].value === last.value ? ", frozen since its first step" : ""
		return `${state.map}: ${format(tau(last))} ms after ${RACE} steps${frozen}. ${there}`
	}

	return {
		label: "A time constant over the steps of an optimiser, for seven ways to store it; and the map of one of them",
		controls: [
			{name: "start", label: "start", ...range, value: 10},
			{name: "target", label: "target", ...range, value: 50},
			{name: "rate", label: "learning rate", low: 0.01, high: 1, log: true, digits: 2, value: 0.1},
			{name: "map", label: "follow", options: NAMES, value: "log"}
		],
		compute,
		draw,
		text
	}
})
