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
				const later = t === spike && t < last ? ms(1) : 0 // what the loss gains if it is a step later
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
		figure.cache[weight] ??= yield* each(THRESHOLDS, STEPS, at => forward(weight, at).spikes)
		yield 2 * STEPS // forward, and backward
		const found = forward(weight, threshold)
		const spike = found.spikes[which - 1] ?? null
		const curve = figure.cache[weight].map(spikes => (which <= spikes.length ? ms(spikes[which - 1] + 1) : null))
		return {...found, ...backward(found, threshold, spike), spike, curve}
	}

	function draw(figure, found) {
		const {state, narrow} = figure
		const [left, wide, beside] = figure.columns(0.58)
		const end = ms(STEPS)
		const ordinal = ORDINALS[state.which - 1]
		const times = found.voltages.map((_, t) => ms(t + 1))

		const [high, low] = narrow ? [84, 74] : [140, 130]
		const voltage = figure.panel([left, 28, wide, high], [0, end], [0, 1.6], {
			name: "voltage",
			title: "voltage, forward →",
			yTicks: [0, 0.5, 1, 1.5]
		})
		voltage.level(state.threshold, "dashed")
		voltage.text(end, state.threshold, "threshold: drag it", "end", -12, -6)
		voltage.line([0, ...times], [LEAK, ...found.voltages], "orange line")
		for (const {t, slope} of found.jumps) {
			const at = ms(t + 1)
			voltage.tangent(at, state.threshold, (A * slope) / ms(1), 1.2, "green thick")
			voltage.dot(at, state.threshold, ...(t === found.spike ? ["knob", 6] : ["green", 4]))
		}
		if (found.jumps.length) voltage.text(0, 1.6, "green: slope s⁻ at the crossing", "green", 8, 12)
		voltage.marks([ms(ARRIVES)], 28 + high, 8, "mark")
		voltage.text(ms(ARRIVES), 0, "input", "muted", 5, 14)

		const least = -20 * 2 ** Math.ceil(Math.log2(Math.max(1, ...found.ofV.map(value => value / -20))))
		const lambda = figure.panel([left, high + 68, wide, low], [0, end], [least, -0.2 * least], {
			title: "← λ: worth of a bit of voltage",
			xLabel: "time (ms)",
			yTicks: [least, least / 2, 0]
		})
		lambda.level(0, "axis")
		lambda.line(times, found.ofV, "blue line")
		for (const {t, before, after} of found.jumps) lambda.line([ms(t + 1), ms(t + 1)], [after, before], "dashed blue")

		const curve = figure.panel(beside(28, 310, 292, 74), [LOW, HIGH], [0, end], {
			title: `${ordinal} spike at (ms)`,
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
			lambda.text(end, 0, `jumps from 0 to ${format(found.ofV[found.spike])}`, "blue end", 0, -6)
		}
		return narrow ? 404 : 380
	}

	const later = slope => `${format(Math.abs(0.01 * slope))} ms ${slope > 0 ? "later" : "earlier"}`

	function text({state}, found) {
		const ordinal = ORDINALS[state.which - 1]
		if (found.spike === null)
			return `There is no ${ordinal} spike: λ is zero everywhere, and no gradient says how to get one.`
		const slope = found.slopes[found.spike]
		const [byVoltage, byThreshold] = [found.ofV[found.spike], found.ofThreshold].map(later)
		return (
			`The ${ordinal} spike comes at ${format(ms(found.spike + 1), 3)} ms, with a slope s⁻ of ${format(slope)}. ` +
			`By the tangent, it would come ${byVoltage} if the voltage before it were higher by 0.01, and ${byThreshold} ` +
			`if the threshold were.${slope < 0.6 ? " It grazes the threshold, and soon is gone." : ""}`
		)
	}

	return {
		label: "Voltage of a neuron; below, the derivative of a spike time by it, backward; beside, the spike time",
		controls: [
			{name: "weight", label: "input weight", low: 0.5, high: 8, value: 5},
			{name: "threshold", label: "threshold v<sub>th</sub>", low: LOW, high: HIGH, value: 0.6},
			{name: "which", label: "loss: the time of the", options: SPIKES, value: "2"}
		],

		handles: () => [{slider: "threshold", panel: "voltage"}],
		compute,
		draw,
		text
	}
})
