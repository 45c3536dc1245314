// The surrogate gradient on the staircase of a loss: chapter 1.
liveFigures.define("surrogate", ({calm, clamp, each, format, list}) => {
	const STEPS = 60 // of 1 ms, with an input spike in every third
	const [A, B] = [1e-3 * (1 / 1e-2), 1e-3 * (1 / 5e-3)] // the defaults of the package
	const WANTED = 5 // spikes
	const WEIGHTS = list(141, k => 0.2 + 0.01 * k)
	const [LOW, HIGH] = [0.2, 1.6]
	const ROLL = 40 // steps

	/** Surrogate derivatives; `circ` has a width where the others have a steepness. */
	const SHAPES = {
		super: (x, alpha) => (1 / (1 + alpha * Math.abs(x))) ** 2,
		tanh: (x, alpha) => 1 - Math.tanh(alpha * x) ** 2,
		heavi_erfc: (x, alpha) => (2 / Math.sqrt(Math.PI)) * Math.exp(-((alpha * x) ** 2)),
		circ: (x, alpha) => (1 + (x / alpha) ** 2) ** -1.5
	}

	/** The loss of a weight and its surrogate gradient, carried forward beside voltage and current. */
	function loss(weight, method, alpha) {
		let [v, i, count, ofV, ofCount] = [0, 0, 0, 0, 0]
		for (let t = 0; t < STEPS; t++) {
			if (t % 3 === 0) i += weight
			v = v + A * (0 - v + i)
			ofV = ofV + A * (i / weight - ofV)
			const z = v > 1 ? 1 : 0
			const ofZ = SHAPES[method](v - 1, alpha) * ofV
			ofV = (1 - z) * ofV - ofZ * v // the reset to 0
			v = (1 - z) * v
			i = i - B * i
			count += z
			ofCount += ofZ
		}
		return {count, loss: (count - WANTED) ** 2 / 2, gradient: (count - WANTED) * ofCount}
	}

	const step = figure =>
		figure.change({weight: figure.result.next, path: [...figure.state.path, figure.state.weight].slice(-ROLL)})

	/** Take many steps, all at once where nothing shall move. */
	function roll(figure, left = ROLL) {
		clearTimeout(figure.rolling)
		if (!left) return
		step(figure)
		if (calm.matches) {
			figure.finish()
			roll(figure, left - 1)
		} else figure.rolling = setTimeout(roll, 80, figure, left - 1)
	}

	function* compute(state, figure) {
		const alpha = state.method === "circ" ? 1 / state.steepness : state.steepness
		const lossOf = weight => loss(weight, state.method, alpha)
		figure.cache[[state.method, alpha]] ??= yield* each(WEIGHTS, STEPS, lossOf)
		const along = figure.cache[[state.method, alpha]]
		yield STEPS
		const [losses, gradients] = ["loss", "gradient"].map(name => along.map(one => one[name]))
		const here = lossOf(state.weight)
		// a step is as long as the slope times a rate, but for slopes beyond 1
		const next = clamp(state.weight - state.rate * clamp(here.gradient, -1, 1), LOW, HIGH)
		return {...here, next, losses, gradients, alpha, path: state.path.map(weight => lossOf(weight).loss)}
	}

	function draw(figure, found) {
		const {state, narrow} = figure
		const [left, wide, beside] = figure.columns(0.62)
		const range = [LOW, HIGH]
		const high = narrow ? 120 : 180
		const onLoss = figure.panel([left, 28, wide, high], range, [0, 20], {name: "loss", title: "loss: drag the ball"})
		const below = figure.panel([left, high + 68, wide, narrow ? 66 : 90], range, [-40, 40], {
			title: "gradient, as learning sees it",
			xLabel: "weight",
			ofY: Math.cbrt, // so that small slopes are seen
			yTicks: [-40, -5, 0, 5, 40]
		})

		onLoss.line(WEIGHTS, found.losses, "line", {stairs: true})
		onLoss.level(found.loss, "dashed muted")
		const {gradient} = found
		onLoss.tangent(state.weight, found.loss, gradient, Math.min(0.3, 9 / Math.abs(gradient)), "green line")
		for (const [k, weight] of state.path.entries()) onLoss.dot(weight, found.path[k], "muted", 2)
		onLoss.line([state.weight, found.next], [found.loss, found.loss], "thick")
		onLoss.dot(state.weight, found.loss, "knob", 8)
		onLoss.text(0.9, 20, `surrogate slope: ${format(gradient)}`, "green middle", 0, 12)
		onLoss.text(0.9, 20, "true slope: 0", "muted middle", 0, 29)
		onLoss.text(0.9, 20, "next step", "middle", 0, 46)

		below.level(0, "axis")
		below.line(WEIGHTS, found.gradients, "green line")
		below.dot(state.weight, clamp(gradient, -40, 40), "green")

		const shape = figure.panel(beside(28, 180, 316, 52), [-1.5, 1.5], [0, 1.2], {
			title: "derivative of the spike",
			xLabel: "voltage − threshold",
			yTicks: [0, 0.5, 1],
			xTicks: [-1, 0, 1]
		})
		shape.line([0, 0], [0, 1.2], "faint")
		const xs = list(181, k => -1.5 + k / 60)
		shape.line(xs, x => SHAPES[state.method](x, found.alpha), "green line")
		shape.text(-1.45, 1.2, `alpha = ${format(found.alpha, 3)}`, "muted", 0, 12)
		return narrow ? 404 : 384
	}

	function text({state}, found) {
		const {count, gradient, next, losses, gradients} = found
		const silent = gradients.filter((_, k) => losses[k] === WANTED ** 2 / 2)
		const felt = silent.filter(slope => Math.abs(slope) > 0.1).length / silent.length
		const known =
			state.path.length < ROLL
				? `Of all weights without a spike, ${Math.round(100 * felt)} % have a slope beyond 0.1.`
				: `The ball stops after ${ROLL} steps.`
		const now = `At a weight of ${format(state.weight, 3)} the neuron fires ${count} of ${WANTED} spikes`
		if (count === WANTED) return `${now}: it has arrived, and the slope is 0. ${known}`
		const why = Math.abs(gradient) > 1 ? "the longest, as the slope is beyond 1" : "the longest times the slope"
		return `${now}. The surrogate's slope is ${format(gradient)}, and the next step ${format(next - state.weight)}: ${why}. ${known}`
	}

	return {
		label: "A ball on the staircase of a loss; below, the surrogate gradient at every weight",
		controls: [
			{name: "method", label: "surrogate", options: Object.keys(SHAPES), value: "super"},
			{name: "steepness", label: "steepness", low: 1, high: 300, log: true, value: 10},
			{name: "rate", label: "longest step", low: 0.005, high: 0.2, log: true, digits: 2, value: 0.05},
			{label: "One step", press: step},
			{label: "Let it roll", press: figure => roll(figure)}
		],
		state: {weight: 0.5, path: []},

		handles: figure => [
			{
				label: "weight",
				axis: "x",
				panel: "loss",
				low: LOW,
				high: HIGH,
				step: 0.01,
				get: () => figure.state.weight,
				set: weight => {
					clearTimeout(figure.rolling)
					Object.assign(figure.state, {weight: Number(weight.toFixed(4)), path: []})
				},
				across: () => figure.result.loss
			}
		],
		compute,
		draw,
		text
	}
})
