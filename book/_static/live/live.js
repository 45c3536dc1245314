// What live figures share: classic scripts, which a page in a folder loads too.
// `define` takes a plan (see CONTRIBUTING.md), which replaces the pictures of the class `live-NAME`.
;(() => {
	const UPDATES_PER_FRAME = 5000 // of a neuron by a time step: what a phone can do
	const plans = {}
	const calm = matchMedia("(prefers-reduced-motion: reduce)")

	/** A number as text, with a true minus sign. */
	const format = (value, digits = 2) => String(Number(value.toPrecision(digits))).replace("-", "−")

	const clamp = (value, low, high) => Math.min(Math.max(value, low), high)
	const total = values => values.reduce((sum, value) => sum + value, 0)

	/** The mean and the standard deviation of a sample. */
	function spread(values) {
		const mean = total(values) / values.length
		return [mean, Math.sqrt(total(values.map(x => (x - mean) ** 2)) / (values.length - 1))]
	}

	/** The share of a standard normal distribution that lies below x, by a series. */
	function normal(x) {
		const near = clamp(x, -8, 8)
		let [term, sum] = [near, near]
		for (let n = 3; n < 160; n += 2) {
			term *= near ** 2 / n
			sum += term
		}
		return 0.5 + (Math.exp(-(near ** 2) / 2) / Math.sqrt(2 * Math.PI)) * sum
	}

	/** The neuron of chapter 1, one line per variable; time constants in ms, step in s. */
	function simulate({tau_mem, tau_syn = 5, v_leak = 0, v_th = 1, v_reset = 0}, step, arrives, steps) {
		const [a, b] = [step * (1000 / tau_mem), step * (1000 / tau_syn)]
		const found = {spikes: [], voltages: [], currents: []}
		let [v, i] = [v_leak, 0]
		for (let t = 0; t < steps; t++) {
			i = i + arrives(t)
			v = v + a * (v_leak - v + i)
			if (v > v_th) {
				found.spikes.push(t)
				v = v_reset
			}
			i = i - b * i
			found.voltages.push(v)
			found.currents.push(i)
		}
		return found
	}

	/** The voltage of a membrane without threshold after one unit of input, and its derivative by a. */
	function impulse(a, b, steps) {
		const found = {voltages: [], derivatives: []}
		let [v, i, ofV] = [0, 1, 0]
		for (let t = 0; t < steps; t++) {
			const slope = 0 - v + i
			ofV = ofV + slope - a * ofV
			v = v + a * slope
			i = i - b * i
			found.voltages.push(v)
			found.derivatives.push(ofV)
		}
		return found
	}

	/** Make something of each value, after yielding how many updates that takes. */
	function* each(values, updates, make) {
		const found = []
		for (const value of values) {
			yield updates
			found.push(make(value))
		}
		return found
	}

	/** The ends of a list of numbers as texts, one if alike. */
	const range = (values, digits) => [...new Set([values[0], values.at(-1)].map(value => format(value, digits)))]

	/** A colour for a time constant, as in all figures of the book: yellow is 3 ms, blue the slowest. */
	function bySpeed(tau, slowest = 30) {
		const place = clamp(Math.log(tau / 3) / Math.log(slowest / 3), 0, 1)
		return `stroke: hsl(${Math.round(40 + 190 * place)} 80% var(--lightness))`
	}

	/** An element; what is in it is a text of ours. */
	function element(text) {
		const template = document.createElement("template")
		template.innerHTML = text
		return template.content.firstChild
	}

	/** A list of what `make` returns for 0 to n - 1. */
	const list = (n, make) => Array.from({length: n}, (_, k) => make(k))

	const p = pixels => Math.round(pixels * 10) / 10
	const path = (kind, d, style = "") => `<path class="${kind}" d="${d}"${style && ` style="${style}"`}/>`
	const text = (x, y, what, kind) => `<text class="${kind}" x="${p(x)}" y="${p(y)}">${what}</text>`

	/** About `most` round numbers from `low` to `high`. */
	function roundNumbers(low, high, most) {
		const least = (high - low) / Math.max(2, Math.floor(most))
		const power = 10 ** Math.floor(Math.log10(least))
		const step = power * [1, 2, 5, 10].find(k => k * power >= least * 0.999)
		const first = Math.ceil(low / step - 1e-9)
		return list(Math.floor(high / step + 1e-9) - first + 1, k => (first + k) * step)
	}

	/** Axes, in pixels of the drawing, and what is drawn on them. */
	class Panel {
		constructor(parts, [left, top, width, height], x, y, options) {
			Object.assign(this, {parts, left, top, width, height, rangeX: x, rangeY: y})
			this.ofY = options?.ofY ?? Number
			if (options) this.axes(options)
		}
		share(value, low, high) {
			return clamp((value - low) / (high - low), -50, 50) // far outside is as good as infinity
		}
		x(value) {
			return this.left + this.width * this.share(value, ...this.rangeX)
		}
		y(value) {
			return this.top + this.height * (1 - this.share(...[value, ...this.rangeY].map(this.ofY)))
		}
		at(axis, x, y) {
			const [low, high] = axis === "x" ? this.rangeX : this.rangeY
			return low + (high - low) * (axis === "x" ? (x - this.left) / this.width : 1 - (y - this.top) / this.height)
		}
		axes({xLabel = "", title = "", xTicks, yTicks, xNames = xLabel ? format : () => "", yNames = format}) {
			const {parts, left, top, width, height} = this
			const bottom = top + height
			for (const v of yTicks ?? roundNumbers(...this.rangeY, height / 34))
				parts.push(
					path("grid", `M${left} ${p(this.y(v))}h${width}`),
					text(left - 6, this.y(v) + 4, yNames(v), "tick end")
				)
			for (const v of xTicks ?? roundNumbers(...this.rangeX, width / 60))
				parts.push(path("axis", `M${p(this.x(v))} ${bottom}v4`), text(this.x(v), bottom + 17, xNames(v), "tick middle"))
			parts.push(path("axis", `M${left} ${bottom}h${width}`), text(left, top - 9, title, "title"))
			parts.push(text(left + width, bottom + 33, xLabel, "tick end"))
		}
		/** A line through points; it has gaps where a number is missing. */
		line(xs, given, kind, {stairs = false, style} = {}) {
			const ys = given.call ? xs.map(given) : given // numbers, or a function that returns them
			let pen = "M"
			const steps = xs.map((value, k) => {
				const [x, y] = [p(this.x(value)), p(this.y(ys[k] ?? Number.NaN))]
				const step = pen === "L" && stairs ? `H${x}V${y}` : `${pen}${x} ${y}`
				pen = Number.isNaN(y) ? "M" : "L"
				return pen === "L" ? step : ""
			})
			this.clipped(path(kind, steps.join(""), style))
		}
		level(y, kind) {
			this.line(this.rangeX, [y, y], kind)
		}
		tangent(x, y, slope, reach, kind) {
			this.line([x - reach, x + reach], [y - slope * reach, y + slope * reach], kind)
		}
		/** Vertical marks, from top, of a height, in pixels. */
		marks(xs, top, height, kind, style) {
			this.parts.push(path(kind, xs.map(v => `M${p(this.x(v))} ${p(top)}v${p(height)}`).join(""), style))
		}
		shade([from, to], [low, high]) {
			this.clipped(path("shade", `M${this.x(from)} ${this.y(low)}V${this.y(high)}H${this.x(to)}V${this.y(low)}Z`))
		}
		dot(x, y, kind, radius = 5) {
			this.parts.push(`<circle class="${kind}" cx="${p(this.x(x))}" cy="${p(this.y(y))}" r="${radius}"/>`)
		}
		/** A label at a point, moved by some pixels. */
		text(x, y, what, kind, dx = 0, dy = 0) {
			this.parts.push(text(this.x(x) + dx, this.y(y) + dy, what, `label ${kind}`))
		}
		/** What leaves the axes is cut off, by a drawing in the drawing. */
		clipped(part) {
			const box = [this.left - 2, this.top - 2, this.width + 4, this.height + 4]
			const [x, y, width, height] = box
			this.parts.push(
				`<svg x="${x}" y="${y}" width="${width}" height="${height}" viewBox="${box.join(" ")}">${part}</svg>`
			)
		}
	}

	class Figure {
		constructor(place, plan) {
			Object.assign(this, {place, plan, panels: {}, cache: {}, updates: 0, id: place.id})
			this.defaults = {...plan.state}
			for (const {name, value} of plan.controls) if (name) this.defaults[name] = value
			this.state = structuredClone(this.defaults)
			this.build()
			this.finish()
			this.visit()
			new ResizeObserver(() => this.width !== this.measured() && this.redraw()).observe(this.canvas)
		}

		build() {
			const {plan, id} = this
			const about = `role="img" aria-label="${plan.label}" aria-describedby="${id}-text"`
			this.canvas = element(`<div class="live-canvas"><svg ${about}></svg></div>`)
			this.drawing = this.canvas.firstChild
			this.message = element(`<p class="live-text" id="${id}-text" aria-hidden="true"></p>`)
			this.voice = element('<p class="live-voice" aria-live="polite"></p>')
			this.controls = element('<div class="live-controls"></div>')
			this.shows = plan.controls.filter(({name}) => name).map(control => this.addControl(control))
			const buttons = element('<div class="live-buttons"></div>')
			const again = {label: "Start again", press: () => this.change(structuredClone(this.defaults))}
			for (const {label, press} of [...plan.controls, again]) if (press) this.addButton(label, press, buttons)
			if (plan.link) {
				this.link = element('<a class="live-button">Link to this view</a>')
				buttons.append(this.link)
				addEventListener("hashchange", () => this.visit())
			}
			this.controls.append(buttons)
			const parts = [this.canvas, this.controls]
			if (plan.link) parts.reverse() // one chooses before one looks
			this.place.querySelector("img").replaceWith(...parts, this.message, this.voice)
			this.handles = plan.handles?.(this) ?? []
			this.keys = this.handles.filter(handle => !handle.slider) // what the tab key and arrows reach
			for (const handle of this.handles) this.addHandle(handle)
			this.presses = plan.presses?.(this) ?? []
			for (const one of this.presses) one.button = this.addButton("", one.press, this.canvas, "live-press")
		}

		addButton(label, press, place, kind = "live-button") {
			const button = element(`<button type="button" class="${kind}">${label}</button>`)
			button.onclick = () => press(this)
			place.append(button)
			return button
		}

		/** Add a slider or a choice and return what makes it show the state. */
		addControl({name, label, options, low, high, log, step, resets, unit = "", digits = 3}) {
			const id = `${this.id}-${name}`
			const [to, from] = log ? [Math.log, Math.exp] : [Number, Number]
			const choices = options?.map(one => `<option value="${[one].flat()[0]}">${[one].flat().at(-1)}</option>`)
			const range = `min="${to(low)}" max="${to(high)}" step="${step ?? (to(high) - to(low)) / (200 + 1e-9)}"`
			const field = options
				? `<select id="${id}">${choices.join("")}</select>`
				: `<input id="${id}" type="range" ${range}><output for="${id}"></output>`
			const row = element(`<div class="live-control"><label for="${id}">${label}</label>${field}</div>`)
			this.controls.append(row)
			const [, input, output] = row.children
			const read = () => {
				const value = Number(from(Number(input.value)).toPrecision(digits))
				return clamp(Math.abs(value) < 1e-9 ? 0 : value, low, high)
			}
			input.oninput = () => this.change({...resets, [name]: options ? input.value : read()})
			return () => {
				const value = this.state[name]
				input.value = options ? value : to(value)
				if (options) return
				output.textContent = format(value, digits) + unit
				input.setAttribute("aria-valuetext", output.textContent)
			}
		}

		/** Show what the page's address asks for, if it makes sense. */
		visit() {
			const [id, query] = location.hash.slice(1).split("?")
			if (!this.link || id !== this.id || !query) return
			try {
				const view = [...new URLSearchParams(query)].map(([name, value]) => [name, JSON.parse(value)])
				this.set({...this.defaults, ...Object.fromEntries(view)})
			} catch {
				this.set(this.defaults)
			}
			this.place.scrollIntoView()
		}

		/** Lay 44 pixels over what can be dragged. */
		addHandle(handle) {
			const {slider, label} = handle
			if (slider) {
				const {low, high} = this.plan.controls.find(({name}) => name === slider)
				const set = value => Object.assign(this.state, {[slider]: Math.round(value * 100) / 100})
				Object.assign(handle, {axis: "y", low, high, set, get: () => this.state[slider]})
			}
			const k = this.keys.indexOf(handle)
			const role = `role="slider" aria-label="${label}" aria-valuemin="${handle.low}" aria-valuemax="${handle.high}"`
			const about = slider ? 'aria-hidden="true"' : `${role} tabindex="${k ? -1 : 0}"`
			handle.button = element(`<div class="live-handle live-handle-${handle.axis}" ${about}></div>`)
			handle.button.onpointerdown = event => this.grab(event)
			handle.button.onkeydown = event => {
				const step = {ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9}[event.key]
				const turn = {ArrowUp: 1, ArrowDown: -1}[event.key]
				if (step) this.move(handle, handle.get() + step * handle.step)
				if (turn) {
					const next = this.keys.at((k + turn) % this.keys.length)
					for (const other of this.keys) other.button.tabIndex = other === next ? 0 : -1
					next.button.focus()
				}
				if (step || turn) event.preventDefault()
			}
			this.canvas.append(handle.button)
		}

		/** Where a handle is: a point, or for the y axis a line, at an x on it or in its middle. */
		placeOf({panel: name, axis, get, across}, x) {
			const panel = this.panels[name]
			return axis === "x" ? [panel.x(get()), panel.y(across())] : [x ?? panel.left + panel.width / 2, panel.y(get())]
		}

		move(handle, value) {
			handle.set(clamp(value, handle.low, handle.high))
			this.change()
		}

		/** Drag the handle that is nearest to the pointer: they may overlap. */
		grab(event) {
			const position = ({clientX, clientY}) => {
				const {left, top, width} = this.drawing.getBoundingClientRect()
				return [clientX - left, clientY - top].map(pixels => (pixels * this.width) / width)
			}
			const start = position(event)
			const distance = handle => Math.hypot(...this.placeOf(handle, start[0]).map((at, k) => at - start[k]))
			const handle = this.handles.reduce((a, b) => (distance(b) < distance(a) ? b : a))
			const {button, slider, axis} = handle
			button.setPointerCapture(event.pointerId)
			if (!slider) button.focus({preventScroll: true})
			button.onpointermove = e => this.move(handle, this.panels[handle.panel].at(axis, ...position(e)))
			button.onlostpointercapture = () => {
				button.onpointermove = null
			}
			event.preventDefault()
		}

		/** Change the state as a reader does, and compute in the next frames. */
		change(values = {}) {
			Object.assign(this.state, values)
			this.showState()
			this.stale = true
			if (this.busy) return
			this.busy = true
			requestAnimationFrame(() => this.frame())
		}

		/** Compute what there is time for, and draw what is done. */
		frame(most = UPDATES_PER_FRAME) {
			let spent = this.ahead
			this.ahead = 0
			if (!this.work && this.stale) {
				this.stale = false
				this.work = this.plan.compute(structuredClone(this.state), this)
			}
			while (this.work) {
				const {done, value} = this.work.next()
				if (done) {
					Object.assign(this, {result: value, work: null})
					break
				}
				this.updates += value
				if (spent + value > most) {
					this.ahead = value // they are made in the next frame
					break
				}
				spent += value
			}
			if (!this.work || (this.result?.partial && !calm.matches)) this.redraw()
			this.busy = Boolean(this.work || this.stale)
			clearTimeout(this.timer)
			if (this.busy) requestAnimationFrame(() => this.frame())
			// what is seen is read out, so late that a voice can follow
			else this.timer = setTimeout(() => this.voice.replaceChildren(this.message.textContent), 250)
		}

		/** Compute all that is due at once, without frames. */
		finish() {
			Object.assign(this, {ahead: 0, work: null, stale: true})
			this.showState()
			this.frame(Infinity)
		}

		/** Set values as a program does, and compute at once. */
		set(values) {
			for (const name of Object.keys(values))
				if (!(name in this.defaults)) throw new Error(`expected one of ${Object.keys(this.defaults)}, got ${name}`)
			Object.assign(this.state, structuredClone(values))
			this.finish()
			return this
		}

		measured() {
			return Math.max(280, this.canvas.clientWidth)
		}

		showState() {
			for (const show of this.shows) show()
		}

		redraw() {
			this.width = this.measured()
			this.narrow = this.width < 520
			this.parts = []
			const height = this.plan.draw(this, this.result)
			this.drawing.setAttribute("viewBox", `0 0 ${this.width} ${height}`)
			this.drawing.innerHTML = this.parts.join("")
			if (this.link) {
				const view = Object.entries(this.state).map(([name, value]) => [name, JSON.stringify(value)])
				this.link.href = `#${this.id}?${new URLSearchParams(view)}`
			}
			if (!this.work) this.message.textContent = this.plan.text(this, this.result)
			const share = pixels => `${(100 * pixels) / this.width}%`
			const put = (button, x, y, wide) =>
				Object.assign(button.style, {left: share(x), top: `${(100 * y) / height}%`, width: wide && share(wide)})
			for (const handle of this.handles) {
				put(handle.button, ...this.placeOf(handle), handle.axis === "y" && this.panels[handle.panel].width)
				if (handle.slider) continue
				handle.button.setAttribute("aria-valuenow", handle.get())
				handle.button.setAttribute("aria-valuetext", format(handle.get(), 3) + (handle.unit ?? ""))
			}
			for (const {button, place, label} of this.presses) {
				const box = place()
				button.hidden = !box
				if (!box) continue
				put(button, box.x, box.y, box.width)
				button.setAttribute("aria-label", `${label()}; press to change`)
			}
		}

		write(...what) {
			this.parts.push(text(...what))
		}

		block(x, y, width, height, kind) {
			this.parts.push(`<rect class="${kind}" x="${x}" y="${y}" width="${width}" height="${height}" rx="4"/>`)
		}

		/** Draw axes into a box of pixels: left, top, width, height. */
		panel(box, x, y, options) {
			const panel = new Panel(this.parts, box, x, y, options)
			this.panels[options?.name] = panel
			return panel
		}

		/** Left edge and width of panels on the left, and a function to the box of one beside them, or below. */
		columns(share) {
			const wide = this.narrow ? this.width - 58 : Math.round(this.width * share) - 44
			const [left, right] = [44, wide + 114]
			const beside = (top, height, below, heightBelow) =>
				this.narrow ? [left, below, wide, heightBelow] : [right, top, this.width - right - 14, height]
			return [left, wide, beside]
		}
	}

	const shared = {bySpeed, calm, clamp, each, format, impulse, list, normal, range, simulate, spread, total}
	const define = (name, make) => Object.assign(plans, {[name]: make(liveFigures)})
	window.liveFigures = {...shared, define}
	document.addEventListener("DOMContentLoaded", () => {
		for (const [name, plan] of Object.entries(plans))
			for (const place of document.querySelectorAll(`figure.live-${name}`)) place.figure = new Figure(place, plan)
	})
})()
