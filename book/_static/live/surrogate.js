// The surrogate gradient on the staircase of a loss: chapter 1.
;(() => {
	const {calm, clamp, format, list} = liveFigures
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

	/** Return the loss of a weight, and its surrogate gradient, carried forward in time beside voltage and current. */
	function loss(weight, method, alpha) {
		let [v, i, count] = [0, 0, 0]
		let [ofV, ofI, ofCount] = [0, 0, 0]
		for (let t = 0; t < STEPS; t++) {
			if (t % 3 === 0) {
				i += weight
				ofI += 1
			}
			v = v + A * (0 - v + i)
			ofV = ofV + A * (ofI - ofV)
			const z = v > 1 ? 1 : 0
			const ofZ = SHAPES[method](v - 1, alpha) * ofV
			ofV = (1 - z) * ofV - ofZ * v // the reset to 0
			v = (1 - z) * v
			i = i - B * i
			ofI = ofI - B * ofI
			count += z
			ofCount += ofZ
		}
		return {count, loss: (count - WANTED) ** 2 / 2, gradient: (count - WANTED) * ofCount}
	}

	/** Return the weight after a step, which is at most as long as the learning rate. */
	const after = (weight, gradient, rate) => clamp(weight - rate * clamp(gradient, -1, 1), LOW, HIGH)

	function step(figure) {
		const {state, result} = figure
		const weight = after(state.weight, result.gradient, state.rate)
		figure.change({weight, path: [...state.path, state.weight].slice(-ROLL)})
	}

	/** Take many steps: one after the other for the eye, all at once where nothing shall move. */
	function roll(figure, left = ROLL) {
		clearTimeout(figure.rolling)
		step(figure)
		if (calm.matches) figure.finish()
		if (left === 1) return
		if (calm.matches) roll(figure, left - 1)
		else figure.rolling = setTimeout(() => roll(figure, left - 1), 80)
	}

	liveFigures.define("surrogate", {
		label: "The loss against a weight, a staircase, with a ball on it; below, the surrogate gradient at every weight",
		controls: [
			{
				name: "method",
				label: "surrogate",
				options: Object.keys(SHAPES).map(name => [name, name]),
				value: "super"
			},
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
				low: LOW,
				high: HIGH,
				step: 0.01,
				get: () => figure.state.weight,
				set: weight => {
					clearTimeout(figure.rolling)
					Object.assign(figure.state, {weight: Number(weight.toFixed(4)), path: []})
				},
				place: () => [figure.panels.loss.x(figure.state.weight), figure.panels.loss.y(figure.result.loss)],
				at: x => figure.panels.loss.atX(x),
				text: () => format(figure.state.weight, 3)
			}
		],

		*compute(state, figure) {
			const alpha = alphaOf(state)
			const key = `${state.method} ${alpha}`
			if (figure.cache.key !== key) {
				const along = []
				for (const weight of WEIGHTS) {
					yield STEPS
					along.push(loss(weight, state.method, alpha))
				}
				Object.assign(figure.cache, {key, along})
			}
			yield STEPS
			const {along} = figure.cache
			const all = {losses: along.map(one => one.loss), gradients: along.map(one => one.gradient)}
			return {...loss(state.weight, state.method, alpha), ...all, alpha}
		},

		draw(figure, found) {
			const {state, width, narrow} = figure
			const left = 40
			const wide = narrow ? width - left - 14 : Math.round(width * 0.62) - left
			const range = [LOW, HIGH]
			const onLoss = figure.panel("loss", left, 28, wide, 180, range, [0, 20])
			onLoss.axes({title: "loss: drag the ball", xNames: () => ""})
			const below = figure.panel("gradient", left, 248, wide, 90, range, [-40, 40])
			below.axes({title: "gradient, as learning sees it", xLabel: "weight", yTicks: [-40, 0, 40]})

			const half = 0.005
			const gaps = WEIGHTS.flatMap((w, k) => {
				const level = found.losses[k]
				const next = found.losses[k + 1] === level ? [] : [[w + half, null]]
				return [[w - half, level], [w + half, level], ...next]
			})
			onLoss.line(...[0, 1].map(k => gaps.map(point => point[k])), "line")
			onLoss.level(found.loss, "dashed muted")
			const {gradient} = found
			const reach = Math.min(0.3, 9 / Math.abs(gradient))
			const ends = [state.weight - reach, state.weight + reach]
			onLoss.line(ends, w => found.loss + gradient * (w - state.weight), "orange line")
			for (const w of state.path) onLoss.dot(w, loss(w, state.method, found.alpha).loss, "muted", 2)
			const onRight = state.weight < 0.9
			const side = {anchor: onRight ? "end" : "start"}
			const edge = onRight ? HIGH : LOW + 0.03
			const crowded = found.loss < 2
			onLoss.text(edge, found.loss, "true slope: 0", "label muted", {...side, dy: crowded ? -6 : 16})
			const shown = format(gradient)
			onLoss.text(edge, found.loss, `surrogate slope: ${shown}`, "label orange", {...side, dy: crowded ? -22 : -7})
			const next = after(state.weight, gradient, state.rate)
			onLoss.dot(state.weight, found.loss, "knob", 8)
			if (next !== state.weight) {
				onLoss.line([state.weight, next], [found.loss, found.loss], "green thick")
				const free = gradient < 0 ? state.weight > 0.45 : state.weight < 1.35 // of the tangent, and within the axes
				const beside = gradient < 0 ? {anchor: "end", dx: -4} : {dx: 4}
				const where = free ? beside : {anchor: "middle"}
				onLoss.text(state.weight, found.loss, "next step", "label green", {...where, dy: crowded ? -12 : 22})
			}

			below.level(0, "axis")
			below.line(WEIGHTS, found.gradients, "orange line")
			below.dot(state.weight, clamp(gradient, -40, 40), "orange", 5)

			const distances = list(181, k => -1.5 + k / 60)
			const box = narrow ? [left, 420, wide, 80] : [left + wide + 70, 28, width - left - wide - 84, 180]
			const shape = figure.panel("shape", ...box, [-1.5, 1.5], [0, 1.2])
			shape.axes({
				title: `derivative of the spike`,
				xLabel: "voltage − threshold",
				yTicks: [0, 0.5, 1],
				xTicks: [-1, 0, 1]
			})
			shape.line([0, 0], [0, 1.2], "faint")
			shape.line(distances, x => SHAPES[state.method](x, found.alpha), "orange line")
			shape.text(-1.45, 1.2, `alpha = ${format(found.alpha, 3)}`, "label muted", {dy: 12})
			return narrow ? 540 : 384
		},

		text({state}, found) {
			const silent = found.gradients.filter((_, k) => found.losses[k] === 12.5)
			const felt = silent.filter(gradient => Math.abs(gradient) > 0.1).length / silent.length
			const now = `Weight ${format(state.weight, 3)}: ${found.count} spikes instead of ${WANTED}.`
			const known = `Of the weights at which the neuron is silent, ${Math.round(100 * felt)} % get a gradient.`
			if (found.count === WANTED) return `${now} Arrived: the gradient is zero, by whatever slope. ${known}`
			const way = found.gradient < 0 ? "up" : "down"
			const weak = Math.abs(found.gradient) < 0.1 ? ", too little to get anywhere" : ""
			return `${now} The true slope is 0. The surrogate's pulls the weight ${way}, by ${format(Math.abs(found.gradient))}${weak}. ${known}`
		}
	})
})()
