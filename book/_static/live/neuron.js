// One neuron, its five parameters and eight input spikes that can be moved: chapter 1.
;(() => {
	const {format, list, simulate} = liveFigures
	const STEPS = 80 // of 1 ms
	const DT = 1e-3 // s
	const WEIGHT = 1.3
	const DEFAULT = {tau_mem: 10, tau_syn: 5, v_leak: 0, v_th: 1, v_reset: 0}
	const TIMES = [5, 10, 15, 35, 37, 39, 41, 43] // ms

	const respond = state =>
		simulate(
			{
				a: DT * (1000 / state.tau_mem),
				b: DT * (1000 / state.tau_syn),
				leak: state.v_leak,
				threshold: state.v_th,
				reset: state.v_reset
			},
			t => WEIGHT * state.times.filter(time => time === t).length,
			STEPS
		)

	/** Say what a step does that is too long for a time constant. */
	function overshoot(name, end, tau) {
		const ratio = DT * (1000 / tau)
		if (ratio <= 1) return ""
		const what = ratio > 2 ? end : "it jumps from side to side"
		return ` Δt/τ = ${format(ratio)}: a step multiplies the ${name} by ${format(1 - ratio)}, and ${what}. Invalid!`
	}

	liveFigures.define("neuron", {
		label: "Input spikes, synaptic current, membrane voltage and output spikes of one neuron over 80 milliseconds",
		controls: [
			{name: "tau_mem", label: "membrane time constant τ<sub>mem</sub>", low: 0.4, high: 50, log: true, unit: "ms"},
			{name: "tau_syn", label: "synaptic time constant τ<sub>syn</sub>", low: 0.4, high: 50, log: true, unit: "ms"},
			{name: "v_leak", label: "leak v<sub>leak</sub>", low: -0.5, high: 1.5},
			{name: "v_th", label: "threshold v<sub>th</sub>", low: 0.1, high: 2.1},
			{name: "v_reset", label: "reset v<sub>reset</sub>", low: -1, high: 1}
		].map(control => ({...control, value: DEFAULT[control.name]})),
		state: {times: TIMES},

		handles: figure => [
			...TIMES.map((_, k) => ({
				label: `time of input spike ${k + 1}`,
				axis: "x",
				low: 0,
				high: STEPS - 1,
				step: 1,
				get: () => figure.state.times[k],
				set: value => figure.state.times.splice(k, 1, Math.round(value)),
				place: () => [figure.panels.current.x(figure.state.times[k]), figure.top],
				at: x => figure.panels.current.atX(x),
				text: () => `${figure.state.times[k]} ms`
			})),
			{
				slider: "v_th",
				axis: "y",
				place: () => [figure.panels.voltage.x(STEPS), figure.panels.voltage.y(figure.state.v_th)],
				at: (_, y) => figure.panels.voltage.atY(y)
			}
		],

		*compute(state, figure) {
			if (!figure.cache.usual) {
				yield STEPS
				figure.cache.usual = respond({...DEFAULT, times: TIMES})
			}
			yield STEPS
			return respond(state)
		},

		draw(figure, found) {
			const {state, width, cache} = figure
			const {usual} = cache
			const times = list(STEPS, t => t)
			const [left, wide] = [34, width - 34 - 20]
			figure.top = 40
			const current = figure.panel("current", left, 74, wide, figure.narrow ? 80 : 100, [0, STEPS], [0, 6])
			current.axes({yTicks: [0, 2, 4, 6], xNames: () => ""})
			figure.write(left, 16, "input spikes: drag them", "title")
			figure.parts.push(`<path class="axis" d="M${left} ${figure.top + 10}h${wide}"/>`)
			state.times.forEach(t => {
				const x = current.x(t)
				figure.parts.push(`<path class="mark" d="M${x} ${figure.top + 10}v-14"/>`)
				figure.parts.push(`<circle class="knob" cx="${x}" cy="${figure.top - 5}" r="6"/>`)
			})
			current.line(times, usual.currents, "ghost", {stairs: true})
			current.line(times, found.currents, "blue line", {stairs: true})
			current.text(STEPS, 6, "synaptic current i", "blue label", {anchor: "end", dy: -7})

			const [top, high] = figure.narrow ? [200, 140] : [224, 170]
			const voltage = figure.panel("voltage", left, top, wide, high, [0, STEPS], [-1, 2.2])
			voltage.axes({yTicks: [-1, 0, 1, 2], xLabel: "time (ms)"})
			voltage.level(state.v_leak, "faint line")
			voltage.line(times, usual.voltages, "ghost", {stairs: true})
			voltage.level(state.v_th, "dashed")
			voltage.line(times, found.voltages, "orange line", {stairs: true})
			voltage.dot(STEPS, state.v_th, "knob", 6)
			voltage.marks(usual.spikes, top - 12, 5, "ghost")
			voltage.marks(found.spikes, top - 12, 16, "mark")
			voltage.text(2, state.v_th, "threshold", "label ink", {dy: -5})
			const below = state.v_leak <= state.v_th
			voltage.text(STEPS, state.v_leak, "leak", "label muted", {anchor: "end", dx: -10, dy: below ? 14 : -5})
			figure.write(left, top - 16, "output spikes", "label ink")
			figure.write(left + wide, top - 16, "membrane voltage v", "label orange", "end")
			if (JSON.stringify(state) !== JSON.stringify(figure.defaults))
				voltage.text(2, -1, "grey: as it was", "label muted", {dy: -7})
			return top + high + 38
		},

		text({state, cache}, found) {
			const first = found.spikes.length ? `, the first at ${found.spikes[0]} ms` : ""
			const before = `(${cache.usual.spikes.length} as it was)`
			return (
				`Output spikes: ${found.spikes.length} ${before}${first}.` +
				(overshoot("current", "it grows without limit", state.tau_syn) ||
					overshoot("voltage", "it swings ever wider, spike after spike", state.tau_mem))
			)
		}
	})
})()
