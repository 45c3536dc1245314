// One neuron, its five parameters and eight input spikes that can be moved: chapter 1.
liveFigures.define("neuron", ({format, list, simulate}) => {
	const STEPS = 80 // of 1 ms
	const DT = 1e-3 // s
	const WEIGHT = 1.3
	const tau = {low: 0.4, high: 50, log: true, unit: " ms"}
	const TIMES = [5, 10, 15, 35, 37, 39, 41, 43] // ms

	const respond = state => simulate(state, DT, t => WEIGHT * state.times.filter(time => time === t).length, STEPS)

	/** Say what a step of 1 ms does that is too long for a time constant. */
	function overshoot(which, what, end, tau) {
		if (tau > 1) return ""
		const [long, goes] =
			tau < 0.5
				? ["more than twice", `swings ever wider${end}`]
				: ["as long as, or longer than,", "goes all the way in one step, or too far"]
		return ` A time step, 1 ms, is ${long} the ${which} time constant: the ${what} ${goes}. A layer refuses such a value.`
	}

	const fires = ({length: n}) => `fires ${n || "no"} spike${n === 1 ? "" : "s"}`
	const changed = ({state, defaults}) => JSON.stringify(state) !== JSON.stringify(defaults)

	function* compute(state, figure) {
		yield 2 * STEPS
		return {...respond(state), usual: respond(figure.defaults)}
	}

	function draw(figure, found) {
		const [{state, width, narrow}, {usual}] = [figure, found]
		const times = list(STEPS, t => t)
		const [left, wide] = [34, width - 54]
		const time = [0, STEPS]
		const input = figure.panel([left, 40, wide, 15], time, [0, 1], {name: "input", yTicks: [], xTicks: []})
		figure.write(left, 16, "input spikes: drag them", "title")
		input.marks(state.times, 41, 14, "mark")
		for (const t of state.times) input.dot(t, 1, "knob", 6)
		const current = figure.panel([left, 74, wide, narrow ? 80 : 100], time, [0, 6], {yTicks: [0, 2, 4, 6]})
		current.line(times, usual.currents, "ghost", {stairs: true})
		current.line(times, found.currents, "blue line", {stairs: true})
		current.text(STEPS, 6, "synaptic current i", "blue end", 0, -7)

		const [top, high] = narrow ? [200, 140] : [224, 170]
		const voltage = figure.panel([left, top, wide, high], time, [-1, 2.2], {
			name: "voltage",
			yTicks: [-1, 0, 1, 2],
			xLabel: "time (ms)"
		})
		voltage.level(state.v_leak, "faint line")
		voltage.line(times, usual.voltages, "ghost", {stairs: true})
		voltage.level(state.v_th, "dashed")
		voltage.line(times, found.voltages, "orange line", {stairs: true})
		voltage.dot(STEPS, state.v_th, "knob", 6)
		voltage.marks(usual.spikes, top - 12, 5, "ghost")
		voltage.marks(found.spikes, top - 12, 16, "mark")
		voltage.text(2, state.v_th, "threshold: drag it", "", 0, -5)
		voltage.text(STEPS, state.v_leak, "leak", "muted end", -10, state.v_leak <= state.v_th ? 14 : -5)
		figure.write(left, top - 16, "output spikes", "label")
		figure.write(left + wide, top - 16, "membrane voltage v", "label orange end")
		if (changed(figure)) voltage.text(2, -1, "grey: as it was at first", "muted", 0, -7)
		return top + high + 38
	}

	function text(figure, found) {
		const {spikes, voltages, usual} = found
		const most = format(Math.max(...voltages), 3)
		const when = spikes.length ? `the first at ${spikes[0]} ms` : `as its voltage reaches at most ${most}`
		const before = changed(figure) ? ` The grey one ${fires(usual.spikes)}.` : ""
		return (
			`The neuron ${fires(spikes)}, ${when}.${before}` +
			(overshoot("synaptic", "current", "", figure.state.tau_syn) ||
				overshoot("membrane", "voltage", " until a reset", figure.state.tau_mem))
		)
	}

	return {
		label: "Input spikes, synaptic current, membrane voltage and output spikes of one neuron",
		controls: [
			{name: "tau_mem", label: "membrane τ", ...tau, value: 10},
			{name: "tau_syn", label: "synapse τ", ...tau, value: 5},
			{name: "v_leak", label: "leak v<sub>leak</sub>", low: -0.5, high: 1.5, value: 0},
			{name: "v_th", label: "threshold v<sub>th</sub>", low: 0.1, high: 2.1, value: 1},
			{name: "v_reset", label: "reset v<sub>reset</sub>", low: -1, high: 1, value: 0}
		],
		state: {times: TIMES},

		handles: figure => [
			...TIMES.map((_, k) => ({
				label: `time of input spike ${k + 1}`,
				axis: "x",
				panel: "input",
				low: 0,
				high: STEPS - 1,
				step: 1,
				unit: " ms",
				get: () => figure.state.times[k],
				set: value => figure.state.times.splice(k, 1, Math.round(value)),
				across: () => 1
			})),
			{slider: "v_th", panel: "voltage"}
		],
		compute,
		draw,
		text
	}
})
