// Seven ways to store one time constant race to a target: chapter 5.
liveFigures.define("race", ({clamp, format, impulse, list, total}) => {
	const DT = 1e-3 // s
	const PULSE = 150 // steps in which the voltage is compared
	const RACE = 120 // steps of the optimiser
	const B = DT * (1 / 5e-3)
	const [LEAST, MOST] = [1e-9, 999.9] // 1/s, of the smooth maps

	/** A smooth map of all numbers into valid rates: a curve, bent at its ends, with its slope. */
	function smooth(look, curve, slope, inverse) {
		const [first, last, margin] = [inverse(LEAST) + 0.5, inverse(MOST) - 0.5, 0.5]
		return {
			look,
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
	const raw = {look: "muted", range: [-150, 1150], inverse: rate => rate, of: x => [x, 1]}
	const share = {look: "pink", range: [-0.15, 1.15], inverse: rate => rate * DT}
	// how it is drawn, what is stored for a rate, the rate and its slope, and what else a step does
	const MAPS = {
		raw,
		"raw, own learning rate": {...raw, look: "muted dashed", faster: 100},
		clamp: {...share, of: x => [cut(x) / DT, x === cut(x) ? 1 / DT : 0]},
		projection: {...share, look: "ink", of: x => [x / DT, 1 / DT], after: cut},
		softplus: smooth(
			"blue",
			x => 100 * Math.log1p(Math.exp(x)),
			x => 100 * sigmoid(x),
			rate => rate / 100 + Math.log(-Math.expm1(-rate / 100))
		),
		decay: smooth(
			"orange",
			x => sigmoid(x) / DT,
			x => (sigmoid(x) * (1 - sigmoid(x))) / DT,
			rate => Math.log((rate * DT) / (1 - rate * DT))
		),
		log: smooth("green", exp, exp, rate => Math.log(rate / 100))
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
			if (!valid({value})) return
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
		return {paths}
	}

	function draw(figure, {paths}) {
		const {state, narrow} = figure
		const [left, both, beside] = figure.columns(0.68)
		const wide = both - 132 // for the names
		const high = narrow ? 150 : 250
		const race = figure.panel([left, 28, wide, high], [0, RACE], [1, 2000], {
			ofY: Math.log10,
			title: "time constant (ms)",
			xLabel: "step",
			yTicks: [1, 10, 100, 1000]
		})
		race.level(state.target, "dashed")
		race.text(RACE, state.target, "target", "muted end", -4, state.target > 100 ? -6 : 15)
		for (const [k, name] of NAMES.entries()) {
			const [path, {faster, look}] = [paths[name], MAPS[name]]
			const kind = `${look} ${name === state.map ? "bold" : "thin"}`
			const taus = path.map(point => (point.value > 0 ? tau(point) : null))
			race.line([...path.keys()], taus, kind)
			const last = path.findLastIndex(valid)
			if (last >= 0 && last < path.length - 1) race.text(last, taus[last], "✕", "pink middle", 0, 4)
			const [x, y] = [left + wide + 10, 42 + 18 * k]
			figure.parts.push(`<path class="${kind}" d="M${x} ${y - 4}h14"/>`)
			figure.write(x + 19, y, faster ? `learning rate ${format(faster * state.rate)}` : name, look)
		}

		const map = MAPS[state.map]
		const curve = figure.panel(beside(28, 250, 250, 100), map.range, [-150, 1150], {
			title: "its rate (1/s)",
			xLabel: "what is stored",
			yTicks: [0, 500, 1000]
		})
		const [from, to] = map.range
		for (const low of [1000, -150]) curve.shade(map.range, [low, low + 150])
		const xs = list(121, k => from + ((to - from) * k) / 120)
		curve.line(xs, x => map.of(x)[0], "line")
		curve.level(1000 / state.target, "dashed")
		for (const {stored, value} of paths[state.map])
			if (stored >= from && stored <= to && Math.abs(value - 500) < 650) curve.dot(stored, value, map.look, 3)
		curve.text(from, 1000, "grey: not valid", "muted", 6, -2)
		return narrow ? 390 : 318
	}

	function text({state}, {paths}) {
		const path = paths[state.map]
		const [last, {target}] = [path.at(-1), state]
		const arrived = NAMES.filter(name => paths[name].length > RACE && near(paths[name].at(-1), target))
		const there = `In the end ${arrived.join("; ") || "none"} came within 5 % of the target.`
		const after = `After ${path.length - 1} steps ${state.map}`
		if (!valid(last)) return `${after} has a rate of ${format(last.value)} per second, as no neuron can have. ${there}`
		const since = path.findLastIndex(point => !near(point, target)) + 1
		if (near(last, target)) return `From step ${since} on, ${state.map} stays within 5 % of the target. ${there}`
		const frozen = path[1].value === last.value ? ", since its first step" : ""
		return `${after} is at ${format(tau(last))} ms${frozen}. ${there}`
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
