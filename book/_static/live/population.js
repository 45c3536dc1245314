// A population whose time constants are spread: chapter 2.
;(() => {
	const {bySpeed, format, impulse, list, normal, simulate, total} = liveFigures
	const NEURONS = 60
	const DT = 2.5e-4 // s: too fine for the time grid to hold neurons together
	const STEPS = 800 // 200 ms
	const ONSET = 80 // 20 ms
	const PER_MS = 4
	const LATE = 70 // ms: from here on the share that fires should be steady
	const TAIL = 150 // steps of 1 ms
	const SYNAPSE = 1 / 5e-3 // 1/s, the default of the package

	/** Return the standard normal deviate below which a share lies: Newton's method. */
	function normalDeviate(share) {
		let x = 0
		for (let k = 0; k < 30; k++) {
			const [below, density] = normal(x)
			x -= (below - share) / density
		}
		return x
	}
	const DEVIATES = list(NEURONS, k => normalDeviate((k + 0.5) / NEURONS))

	/** Return log-normal time constants in ms, from the shortest; each stands for an equal share of the distribution. */
	function spreadOut({median, variation}) {
		const width = Math.sqrt(Math.log1p(variation ** 2))
		return DEVIATES.map(deviate => median * Math.exp(width * deviate))
	}

	/** Return for each millisecond the share that fires, and every neuron's spikes, in steps. */
	function* respond(taus, current) {
		const kept = current * DT * SYNAPSE // just what the synapse loses in a step
		const arrives = t => (t < ONSET ? 0 : t === ONSET ? current : kept)
		const share = Array(STEPS / PER_MS).fill(0)
		const spikes = []
		for (const tau of taus) {
			yield STEPS
			spikes.push(simulate({a: DT * (1000 / tau), b: DT * SYNAPSE}, arrives, STEPS).spikes)
			for (const t of spikes.at(-1)) share[Math.floor(t / PER_MS)] += 1 / taus.length
		}
		return {spikes, share}
	}

	/** Return the mean voltage of membranes without threshold after one input spike. */
	function* remember(taus) {
		const tail = Array(TAIL).fill(0)
		for (const tau of taus) {
			yield TAIL
			impulse(1e-3 * (1000 / tau), 1e-3 * SYNAPSE, TAIL).voltages.forEach((v, t) => {
				tail[t] += v / taus.length
			})
		}
		return tail
	}

	function deviation(share) {
		const late = share.slice(LATE)
		const mean = total(late) / late.length
		return Math.sqrt(total(late.map(x => (x - mean) ** 2)) / (late.length - 1))
	}

	liveFigures.define("population", {
		label:
			"Spikes of 60 neurons sorted by their time constants, the share that fires, and the memory of their membranes",
		controls: [
			{
				name: "variation",
				label: "spread of the time constants (variation)",
				low: 0,
				high: 0.8,
				value: 0.05,
				digits: 2
			},
			{name: "median", label: "median time constant", low: 8, high: 30, log: true, unit: "ms", value: 10},
			{name: "current", label: "input current", low: 0.8, high: 3, value: 1.3}
		],

		*compute(state) {
			const taus = spreadOut(state)
			const found = yield* respond(taus, state.current)
			const tail = yield* remember(taus)
			const equal = yield* respond([state.median], state.current)
			const equalTail = yield* remember([state.median])
			return {taus, ...found, deviation: deviation(found.share), tail, equalShare: equal.share, equalTail}
		},

		draw(figure, found) {
			const {width, narrow} = figure
			const left = 44
			const wide = narrow ? width - left - 14 : Math.round(width * 0.6) - left
			const end = (STEPS * DT * 1e3) | 0
			const raster = figure.panel("raster", left, 28, wide, 182, [0, end], [0, NEURONS])
			const rows = [0, 30, 59]
			raster.axes({
				title: "spikes, one row per neuron",
				xNames: () => "",
				yTicks: rows.map(k => k + 0.5),
				yNames: k => `${format(found.taus[Math.floor(k)], 2)} ms`
			})
			found.spikes.forEach((times, k) => {
				const at = times.map(t => t * DT * 1e3)
				raster.marks(at, raster.y(k + 0.95), (0.9 * 182) / NEURONS, "mark", bySpeed(found.taus[k] / 4))
			})
			const ms = list(end, t => t)
			const share = figure.panel("share", left, 250, wide, 90, [0, end], [0, 1])
			share.axes({
				title: "share that fires in each millisecond",
				xLabel: "time (ms)",
				yTicks: [0, 0.5, 1],
				yNames: v => `${100 * v} %`
			})
			share.line(ms, found.equalShare, "ghost")
			share.line(ms, found.share, "orange line")

			const box = narrow ? [left, 422, wide, 130] : [left + wide + 74, 28, width - left - wide - 88, 312]
			const tail = figure.panel("tail", ...box, [0, TAIL], [1e-6, 1], {logY: true})
			tail.axes({
				title: narrow ? "memory: voltage after one input" : "memory: voltage after input",
				xLabel: "time (ms)",
				yTicks: [1e-6, 1e-4, 1e-2, 1],
				yNames: v => (v === 1 ? "1" : `10<tspan dy="-5" font-size="9">${format(Math.log10(v), 1)}</tspan>`),
				xTicks: [0, 50, 100, 150]
			})
			const times = found.tail.map((_, t) => t)
			tail.line(times, found.equalTail, "ghost")
			tail.line(times, found.tail, "blue line")
			tail.text(TAIL, 1, "your population", "blue label", {anchor: "end", dy: 14})
			tail.text(TAIL, 1, "grey: all equal", "muted label", {anchor: "end", dy: 31})
			return narrow ? 594 : 378
		},

		text(_, found) {
			const steady = [found.share, found.equalShare].map(share => format(100 * deviation(share), 2))
			const more = found.tail[100] / Math.max(...found.tail) / (found.equalTail[100] / Math.max(...found.equalTail))
			const range = `Time constants from ${format(found.taus[0], 2)} to ${format(found.taus.at(-1), 2)} ms.`
			if (found.spikes.every(times => !times.length))
				return `${range} The current does not reach the threshold of 1: nobody fires.`
			return (
				`${range} The share that fires swings by ${steady[0]} points, in equal neurons by ${steady[1]}. ` +
				`After 100 ms, ${format(more)} times as much is left of an input as in equal ones.`
			)
		}
	})
})()
