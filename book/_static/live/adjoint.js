// The adjoint method on one neuron: voltage forward, its derivative backward: chapter 7.
liveFigures.define("adjoint", ({each, format, list, simulate}) => {
	const DT = 1e-4 // s
	const STEPS = 300 // 30 ms
	const ARRIVES = 20 // steps: the input comes at 2 ms
	const [A, B] = [DT * 60, DT * 140]
	const [LEAK, RESET] = [0.1, 0]
	const GRAZING = 1e-3 // least slope at a crossing, as in the package
	const THRESHOLDS = list(61, k => 0.2 + 0.02 * k)
	const [LOW, HIGH] = [0.2, 1.4]
	const ORDINALS = ["first", "second", "third"]
	const SPIKES = ORDINALS.map((name, k) => [k + 1, `${name} spike`])
	const ms = t => t * DT * 1e3

	/** Voltages, spikes, and slopes at the threshold, in units of 1 / tau_mem. */
	function forward(weight, threshold) {
		const neuron = {tau_mem: 1000 / 60, tau_syn: 1000 / 140, v_leak: LEAK, v_th: threshold, v_reset: RESET}
		const found = simulate(neuron, DT, t => (t === ARRIVES ? weight : 0), STEPS)
		const before = found.currents.map(i => i / (1 - B)) // the synapse lost its share of them
		return {...found, slopes: before.map(i => LEAK - threshold + i)}
	}

	/** Derivatives of a spike time, in ms: by voltage, backward, and by the threshold. */
	function backward({slopes, spikes}, threshold, spike) {
		const ofV = Array(STEPS).fill(0)
		const jumps = []
		let [lambdaV, ofThreshold] = [0, 0]
		const last = STEPS - 1
		for (let t = last; t >= 0; t--) {
			if (spikes.includes(t)) {
				const later = t === spike && t < last ? ms(1) : 0 // by how much the loss grows if this spike is a step later
				const steep = Math.max(slopes[t], 0)
				const before = (lambdaV * (steep + (threshold - RESET)) - later / A) / Math.max(steep, GRAZING)
				jumps.push({t, before, after: lambdaV, slope: steep})
				lambdaV = before
				ofThreshold -= lambdaV
			}
			ofV[t] = lambdaV
			lambdaV = lambdaV - A * lambdaV
		}
		return {ofV, jumps, ofThreshold}
	}

	function* compute({weight, threshold, which}, figure) {
		const {cache} = figure
		if (cache.weight !== weight) {
			const times = yield* each(THRESHOLDS, STEPS, at => forward(weight, at).spikes)
			Object.assign(cache, {weight, times})
		}
		yield 2 * STEPS // forward, and backward
		const found = forward(weight, threshold)
		const spike = found.spikes[which - 1] ?? null
		const curve = cache.times.map(spikes => (which <= spikes.length ? ms(spikes[which - 1] + 1) : null))
		return {...found, ...backward(found, threshold, spike), spike, curve}
	}

	function draw(figure, found) {
		const {state, narrow} = figure
		const [left, wide, beside] = figure.columns(0.58)
		const end = ms(STEPS)
		const ordinal = ORDINALS[state.which - 1]
		const times = found.voltages.map((_, t) => ms(t + 1))

		const voltage = figure.panel([left, 28, wide, 140], [0, end], [0, 1.6], {
			name: "voltage",
			title: "voltage, forward →",
			yTicks: [0, 0.5, 1, 1.5],
			xNames: () => ""
		})
		voltage.level(state.threshold, "dashed")
		voltage.text(end, state.threshold, "threshold: drag it", "end", -12, -6)
		voltage.line([0, ...times], [LEAK, ...found.voltages], "orange line")
		for (const {t, slope} of found.jumps) {
			const at = ms(t + 1)
			voltage.tangent(at, state.threshold, (A * slope) / ms(1), 1.2, "green thick")
			voltage.dot(at, state.threshold, t === found.spike ? "knob" : "green", t === found.spike ? 6 : 4)
		}
		if (found.jumps.length) voltage.text(0, 1.6, "green: slope s⁻ at the crossing", "green", 8, 12)
		voltage.marks([ms(ARRIVES)], 168, 8, "mark")
		voltage.text(ms(ARRIVES), 0, "input", "muted", 5, 14)

		const low = -20 * 2 ** Math.ceil(Math.log2(Math.max(1, ...found.ofV.map(value => value / -20))))
		const lambda = figure.panel([left, 208, wide, 130], [0, end], [low, -0.2 * low], {
			title: "← λ: worth of a bit of voltage",
			xLabel: "time (ms)",
			yTicks: [low, low / 2, 0]
		})
		lambda.level(0, "axis")
		lambda.line(times, found.ofV, "blue line")
		for (const {t, before, after} of found.jumps) {
			const at = ms(t + 1)
			lambda.line([at, at], [after, before], "dashed blue")
			if (t === found.spike) lambda.text(at, before, `jumps to ${format(before)}`, "blue", 8, 2)
		}

		const curve = figure.panel(beside(28, 310, 424, 150), [LOW, HIGH], [0, end], {
			title: `time of the ${ordinal} spike (ms)`,
			xLabel: "threshold"
		})
		curve.line(THRESHOLDS, found.curve, "line")
		if (found.curve.lastIndexOf(null) > 50) curve.text(HIGH, 0, "no spike", "muted end", 0, -8)
		if (found.spike !== null) {
			const at = ms(found.spike + 1)
			const reach = Math.min(0.2, 8 / Math.abs(found.ofThreshold))
			curve.tangent(state.threshold, at, found.ofThreshold, reach, "blue line")
			curve.dot(state.threshold, at, "knob", 6)
			curve.text(LOW, end, "blue: tangent from λ", "blue", 8, 12)
		}
		return narrow ? 616 : 380
	}

	function text({state}, found) {
		const ordinal = ORDINALS[state.which - 1]
		if (found.spike === null)
			return `There is no ${ordinal} spike: λ is zero everywhere, and no gradient says how to get one.`
		const {slope, before} = found.jumps.find(jump => jump.t === found.spike)
		return (
			`The ${ordinal} spike comes at ${format(ms(found.spike + 1), 3)} ms, with a slope s⁻ of ${format(slope)}. Just before it λ is ` +
			`${format(before)}: a voltage higher by 0.01 makes it ${format(-0.01 * before)} ms earlier, ` +
			`a threshold higher by 0.01 ${format(0.01 * found.ofThreshold)} ms later.${slope < 0.6 ? " It grazes: soon it is gone." : ""}`
		)
	}

	return {
		label: "Voltage of a neuron; below, the derivative of a spike time by it, backward; beside, the spike time",
		controls: [
			{name: "weight", label: "weight of the input", low: 0.5, high: 8, value: 5},
			{name: "threshold", label: "threshold v<sub>th</sub>", low: LOW, high: HIGH, value: 0.6},
			{name: "which", label: "the loss is the time of the", options: SPIKES, value: "2"}
		],

		handles: () => [{slider: "threshold", axis: "y", panel: "voltage", across: () => ms(STEPS)}],
		compute,
		draw,
		text
	}
})
