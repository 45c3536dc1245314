// A population whose time constants are spread: chapter 2.
liveFigures.define("population", ({bySpeed, each, format, impulse, list, normal, range, simulate, spread, total}) => {
	const NEURONS = 60
	const DT = 2.5e-4 // s: too fine for the time grid to hold neurons together
	const STEPS = 800 // 200 ms
	const ONSET = 80 // 20 ms
	const PER_MS = 4
	const LATE = 70 // ms: from here on the share that fires should be steady
	const TAIL = 150 // steps of 1 ms
	const SYNAPSE = 1 / 5e-3 // 1/s, the default of the package

	/** Standard normal deviates, each for an equal share of the distribution, by bisection. */
	const DEVIATES = list(NEURONS, k => {
		let x = 0
		for (let step = 4; step > 1e-15; step /= 2) x += normal(x) < (k + 0.5) / NEURONS ? step : -step
		return x
	})

	/** The share that fires in each ms, and every neuron's spikes, in steps. */
	function* respond(taus, current) {
		const kept = current * DT * SYNAPSE // just what the synapse loses in a step
		const arrives = t => (t < ONSET ? 0 : t === ONSET ? current : kept)
		const fires = tau => simulate({tau_mem: tau}, DT, arrives, STEPS).spikes
		const spikes = yield* each(taus, STEPS, fires)
		const share = Array(STEPS / PER_MS).fill(0)
		for (const t of spikes.flat()) share[Math.floor(t / PER_MS)] += 1 / taus.length
		return {spikes, share}
	}

	/** The mean voltage of membranes without threshold after one input spike. */
	function* remember(taus) {
		const after = tau => impulse(1e-3 * (1000 / tau), 1e-3 * SYNAPSE, TAIL).voltages
		const voltages = yield* each(taus, TAIL, after)
		return list(TAIL, t => total(voltages.map(v => v[t])) / taus.length)
	}

	const deviation = share => spread(share.slice(LATE))[1]

	function* compute({variation, median, current}) {
		const width = Math.sqrt(Math.log1p(variation ** 2))
		const taus = DEVIATES.map(deviate => median * Math.exp(width * deviate)) // log-normal, in ms, from the shortest
		const found = yield* respond(taus, current)
		const tail = yield* remember(taus)
		const equal = yield* respond([median], current)
		const equalTail = yield* remember([median])
		return {taus, ...found, deviation: deviation(found.share), tail, equalShare: equal.share, equalTail}
	}

	function draw(figure, found) {
		const {state, narrow} = figure
		const [left, wide, beside] = figure.columns(0.6)
		const end = 200 // ms
		const high = narrow ? 108 : 182
		const raster = figure.panel([left, 28, wide, high], [0, end], [0, NEURONS], {
			title: "time constants (ms) and spikes",
			yTicks: state.variation ? [0.5, 30.5, 59.5] : [30.5],
			yNames: row => format(found.taus[Math.floor(row)], 3)
		})
		found.spikes.forEach((times, k) => {
			const at = times.map(t => t * DT * 1e3)
			raster.marks(at, raster.y(k + 0.95), (0.9 * high) / NEURONS, "mark", bySpeed(found.taus[k]))
		})
		if (!found.spikes.flat().length) raster.text(100, 30, "no spikes", "muted middle")
		const share = figure.panel([left, high + 68, wide, narrow ? 54 : 90], [0, end], [0, 1], {
			title: "share that fires in each ms (%)",
			xLabel: "time (ms)",
			yTicks: [0, 0.5, 1],
			yNames: v => 100 * v
		})
		const ms = [...found.share.keys()]
		share.line(ms, found.equalShare, "ghost")
		share.line(ms, found.share, "line")

		const tail = figure.panel(beside(28, 312, 294, 72), [0, TAIL], [1e-6, 1], {
			ofY: Math.log10,
			title: "voltage after input",
			xLabel: "time (ms)",
			yTicks: [1e-6, 1e-4, 1e-2, 1],
			yNames: v => ({1e-6: "10⁻⁶", 1e-4: "10⁻⁴", 1e-2: "10⁻²", 1: "1"})[v]
		})
		tail.line(ms, found.equalTail, "ghost")
		tail.line(ms, found.tail, "line")
		tail.text(TAIL, 1, "your population", "end", 0, 14)
		tail.text(TAIL, 1, "grey: all equal", "muted end", 0, 31)
		return narrow ? 404 : 378
	}

	function text(_, found) {
		const [first, last] = range(found.taus, 3)
		const taus = last ? `Time constants lie between ${first} and ${last} ms` : `All time constants are ${first} ms`
		if (!found.spikes.flat().length) return `${taus}. No neuron fires: the current stays below the threshold of 1.`
		const [now, usual] = [found.deviation, deviation(found.equalShare)].map(share => format(100 * share))
		const swing = `the share that fires has a standard deviation of ${now} %`
		if (!last) return `${taus}, so that all neurons fire together: ${swing}.`
		const left = tail => tail[100] / Math.max(...tail)
		const more = format(left(found.tail) / left(found.equalTail))
		const times = more === "1" ? "as much" : `${more} times as much`
		return `${taus}; ${swing}, in equal neurons of ${usual} %. After 100 ms, ${times} is left of an input as in equal ones.`
	}

	return {
		label: "Spikes of 60 neurons sorted by time constant, the share that fires, and what their membranes remember",
		controls: [
			{name: "variation", label: "spread of τ<sub>mem</sub>", low: 0, high: 0.8, value: 0, digits: 2},
			{name: "median", label: "median τ<sub>mem</sub>", low: 8, high: 30, log: true, unit: " ms", value: 10},
			{name: "current", label: "input current", low: 0.8, high: 3, value: 1.3}
		],
		compute,
		draw,
		text
	}
})
