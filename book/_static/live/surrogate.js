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
	const alphaOf = ({method, steepness}) => (method === "circ" ? 1 / steepness : steepness)

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

	/** The weight after a step, which is at most as long as the learning rate. */
	const after = (weight, gradient, rate) => clamp(weight - rate * clamp(gradient, -1, 1), LOW, HIGH)

	function step(figure) {
		const {state, result} = figure
		const weight = after(state.weight, result.gradient, state.rate)
		figure.change({weight, path: [...state.path, state.weight].slice(-ROLL)})
	}

	/** Take many steps, all at once where nothing shall move. */
	function roll(figure, left = ROLL) {
		clearTimeout(figure.rolling)
		step(figure)
		if (calm.matches) figure.finish()
		const next = () => left > 1 && roll(figure, left - 1)
		if (calm.matches) next()
		else figure.rolling = setTimeout(next, 80)
	}

	function* compute(state, figure) {
		const alpha = alphaOf(state)
		const key = `${state.method} ${alpha}`
		if (figure.cache.key !== key) {
			const along = yield* each(WEIGHTS, STEPS, weight => loss(weight, state.method, alpha))
			Object.assign(figure.cache, {key, along})
		}
		yield STEPS
		const {along} = figure.cache
		const [losses, gradients] = ["loss", "gradient"].map(name => along.map(one => one[name]))
		return {...loss(state.weight, state.method, alpha), losses, gradients, alpha}
	}

	function draw(figure, found) {
		const {state, narrow} = figure
		const [left, wide, beside] = figure.columns(0.62)
		const range = [LOW, HIGH]
		const onLoss = figure.panel([left, 28, wide, 180], range, [0, 20], {
			name: "loss",
			title: "loss: drag the ball",
			xNames: () => ""
		})
		const below = figure.panel([left, 248, wide, 90], range, [-40, 40], {
			title: "gradient, as learning sees it",
			xLabel: "weight",
			ofY: v => Math.sign(v) * Math.sqrt(Math.abs(v)), // so that small slopes are seen
			yTicks: [-40, -10, 0, 10, 40]
		})

		onLoss.line(WEIGHTS, found.losses, "line", {stairs: true})
		onLoss.level(found.loss, "dashed muted")
		const {gradient} = found
		onLoss.tangent(state.weight, found.loss, gradient, Math.min(0.3, 9 / Math.abs(gradient)), "green line")
		for (const w of state.path) onLoss.dot(w, loss(w, state.method, found.alpha).loss, "muted", 2)
		const next = after(state.weight, gradient, state.rate)
		onLoss.line([state.weight, next], [found.loss, found.loss], "thick")
		onLoss.dot(state.weight, found.loss, "knob", 8)
		const names = [`surrogate slope: ${format(gradient)}`, "true slope: 0", "next step"]
		for (const [k, kind] of ["green", "muted", ""].entries())
			onLoss.text(0.9, 20, names[k], `${kind} middle`, 0, 12 + 17 * k)

		below.level(0, "axis")
		below.line(WEIGHTS, found.gradients, "green line")
		below.dot(state.weight, clamp(gradient, -40, 40), "green", 5)

		const distances = list(181, k => -1.5 + k / 60)
		const shape = figure.panel(beside(28, 180, 420, 80), [-1.5, 1.5], [0, 1.2], {
			title: "derivative of the spike",
			xLabel: "voltage − threshold",
			yTicks: [0, 0.5, 1],
			xTicks: [-1, 0, 1]
		})
		shape.line([0, 0], [0, 1.2], "faint")
		shape.line(distances, x => SHAPES[state.method](x, found.alpha), "green line")
		shape.text(-1.45, 1.2, `alpha = ${format(found.alpha, 3)}`, "muted", 0, 12)
		return narrow ? 540 : 384
	}

	function text({state}, found) {
		const silent = found.gradients.filter((_, k) => found.losses[k] === 12.5)
		const felt = silent.filter(gradient => Math.abs(gradient) > 0.1).length / silent.length
		const now = `Weight ${format(state.weight, 3)}: ${found.count} spikes instead of ${WANTED}.`
		const known = `Of the weights without a spike, ${Math.round(100 * felt)} % get a gradient.`
		if (found.count === WANTED) return `${now} Arrived: the gradient is zero, by whatever slope. ${known}`
		const way = format(after(state.weight, found.gradient, state.rate) - state.weight)
		return `${now} The surrogate's slope is ${format(found.gradient)}: a step changes the weight by ${way}. ${known}`
	}

	return {
		label: "The loss against a weight, a staircase, with a ball on it; below, the surrogate gradient at every weight",
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
