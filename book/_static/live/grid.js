// An experiment, seed by seed: what few seeds would have said, and all say.
liveFigures.define("grid", ({clamp, grid, list, spread}) => {
	const {tasks, titles, measures, critical} = grid // of grid_data.js, which a build writes
	const MOST = critical.length - 1 // seeds
	const KEPT = 20 // draws

	/** The mean with its t interval, as `statistics.mean_contrast` of the package; one seed has none. */
	function interval(values) {
		const n = values.length
		const [mean, deviation] = spread(values)
		if (n < 2) return {mean, low: -Infinity, high: Infinity}
		const half = (critical[n] * deviation) / Math.sqrt(n)
		return {mean, low: mean - half, high: mean + half}
	}
	function signed(value) {
		const size = Math.abs(value).toFixed(1)
		return size === "0.0" ? size : (value > 0 ? "+" : "−") + size // what rounds to zero has no sign
	}
	const seen = ({low, high}) => low > 0 || high < 0
	const look = one => (seen(one) ? "" : "muted")

	function pick(figure, times) {
		const {task, count, draws} = figure.state
		const drawn = list(times, () => {
			const places = list(tasks[task].seeds.length, k => [Math.random(), k])
			const shuffled = places.sort(([one], [other]) => one - other)
			return shuffled.slice(0, count).map(([, k]) => k)
		})
		figure.change({picked: drawn[0], draws: [...drawn, ...draws].slice(0, KEPT)})
	}

	const kinds = Object.entries(titles)
	const taskTitles = Object.entries(tasks).map(([name, {title}]) => [name, title])
	const measureTitles = Object.entries(measures).map(([name, [title]]) => [name, title])
	const again = {picked: [], draws: []} // places of seeds; none is the first ones
	function* compute(state) {
		const {seeds, kinds} = tasks[state.task]
		const [ours, theirs] = [kinds[state.kind], kinds[state.other]].map(kind => kind[state.measure])
		yield seeds.length
		const differences = ours.map((value, k) => value - theirs[k])
		const valid = state.picked.filter(k => k in differences)
		const picked = valid.length ? valid : list(Math.min(state.count, seeds.length), k => k)
		const of = places => interval(places.map(k => differences[k]))
		return {differences, picked, now: of(picked), all: interval(differences), draws: state.draws.map(of)}
	}

	function draw(figure, {differences, picked, now, all, draws}) {
		const {state, width, narrow} = figure
		const {seeds} = tasks[state.task]
		const [title, unit] = measures[state.measure]
		const columns = narrow ? 5 : 10
		const wide = (width - 14) / columns
		figure.write(0, 16, "seeds: press to take or leave", "title")
		figure.tiles = differences.map((value, k) => {
			const place = {x: (k % columns) * wide, y: 28 + 48 * Math.floor(k / columns), width: wide}
			const taken = picked.includes(k)
			figure.block(place.x + 1, place.y, wide - 4, 44, taken ? "ink" : "")
			const [middle, ink] = [place.x + wide / 2, taken ? "paper middle" : "middle"]
			figure.write(middle, place.y + 17, seeds[k], `${ink} small`)
			figure.write(middle, place.y + 35, signed(value), ink)
			return place
		})

		const top = 68 + 48 * Math.ceil(MOST / columns)
		const farthest = 2 * Math.max(...differences.map(Math.abs)) // intervals of two seeds reach farther still
		const ends = [now, all, ...draws].flatMap(one => [one.low, one.high]).filter(Number.isFinite)
		const shown = [0, ...differences, ...ends.map(end => clamp(end, -farthest, farthest))]
		const [low, high] = [Math.min(...shown), Math.max(...shown)]
		const room = 0.1 * (high - low) || 1
		const rows = draws[0] ? 24 : 5
		const panel = figure.panel([62, top, width - 76, 10 * rows], [low - room, high + room], [24 - rows, 24], {
			title: "mean and 95 % interval",
			xLabel: `difference${narrow ? "" : ` in ${title}`} (${unit})`,
			yTicks: []
		})
		panel.line([0, 0], panel.rangeY, "axis")
		const row = (one, y, kind, radius) => {
			panel.line([one.low, one.high], [y, y], `${look(one)} ${kind}`)
			// where an interval goes on outside, an arrow says so
			for (const [k, edge] of panel.rangeX.entries())
				if ([one.low < edge, one.high > edge][k]) panel.text(edge, y, "◂▸"[k], "middle", 0, 4)
			panel.dot(one.mean, y, look(one), radius)
		}
		const names = [`these ${picked.length}`, `all ${seeds.length}`, draws[0] ? "draws" : ""]
		for (const [k, name] of names.entries()) figure.write(54, panel.y(22 - 2 * k) + 4, name, "tick end")
		row(now, 22, "thick", 6)
		row(all, 20, "line", 4)
		for (const [k, one] of draws.entries()) row(one, 18 - 0.9 * k, "", 2.5)
		return top + 10 * rows + 40
	}

	function text({state}, {picked, now, all, draws}) {
		const {seeds, note} = tasks[state.task]
		const number = ({mean, low, high}) => signed(mean) + (low > -Infinity ? ` (${signed(low)} to ${signed(high)})` : "")
		if (state.kind === state.other) return "Choose two different kinds."
		const [ours, theirs] = [titles[state.kind], titles[state.other]]
		const higher = seen(now) ? `${now.mean > 0 ? ours : theirs} is higher` : "no difference is seen"
		const what = picked.length > 1 ? `so that ${higher}` : "and one seed has no interval"
		const many = draws.length > 1 ? ` Of ${draws.length} draws ${draws.filter(seen).length} saw a difference.` : ""
		return (
			`With ${picked.length} of ${seeds.length} seeds, ${ours} minus ${theirs} is ` +
			`${number(now)} ${measures[state.measure][1]}, ${what}. All seeds say ${number(all)}.${many} ${note}`
		)
	}

	return {
		label: "Differences between two kinds of networks, seed by seed, and their mean with a 95 % interval",
		controls: [
			{name: "task", label: "task", options: taskTitles, value: "windows 4", resets: again},
			{name: "measure", label: "what is compared", options: measureTitles, value: "accuracy"},
			{name: "kind", label: "kind", options: kinds, value: "tau_syn learned"},
			{name: "other", label: "minus", options: kinds, value: "different tau_syn"},
			{name: "count", label: "seeds in a draw", low: 1, high: MOST, step: 1, value: 3, resets: again},
			{label: "Draw seeds", press: figure => pick(figure, 1)},
			{label: `Draw ${KEPT} times`, press: figure => pick(figure, KEPT)}
		],
		state: again,
		link: true,

		presses: figure =>
			list(MOST, k => ({
				label: () => {
					const {differences, picked} = figure.result
					const seed = tasks[figure.state.task].seeds[k]
					return `seed ${seed}: ${signed(differences[k])}, ${picked.includes(k) ? "taken in" : "left out"}`
				},
				press: () => {
					const {picked} = figure.result
					const rest = picked.filter(i => i !== k) // the last stays
					figure.change({picked: rest.length && picked.includes(k) ? rest : [...rest, k]})
				},
				place: () => figure.tiles[k]
			})),
		compute,
		draw,
		text
	}
})
