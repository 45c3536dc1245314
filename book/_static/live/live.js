// Figures that compute in the page: what they have in common. Classic scripts without a request: a page that was opened
// from a folder works as well. A figure of the class `live-NAME` is a picture until it is replaced by what `define` got:
//   label      what is drawn, for those who cannot see it
//   controls   sliders {name, label, low, high, value, log, unit}, choices {name, label, options, value}, buttons
//   state      what else can be changed; `handles` and `presses`: what of it is dragged and pressed in the drawing
//   compute    a generator from the state to a result: before it updates n neurons it yields n
//   draw       draws state and result of the figure and returns the height
//   text       the sentence that follows; `values`: the numbers, for whoever wants to check them
;(() => {
	const UPDATES_PER_FRAME = 5000 // of one neuron by one time step: what a phone does without a stutter
	const definitions = {}
	const calm = window.matchMedia("(prefers-reduced-motion: reduce)")
	let count = 0

	/** Return a number as text, with a true minus sign. */
	const format = (value, digits = 2) => String(Number(value.toPrecision(digits))).replace("-", "−")

	const clamp = (value, low, high) => Math.min(Math.max(value, low), high)
	const total = values => values.reduce((sum, value) => sum + value, 0)

	/** The standard normal distribution: the share below x, by a series, and the density. */
	function normal(x) {
		const near = clamp(x, -8, 8)
		let [term, sum] = [near, near]
		for (let n = 3; n < 160; n += 2) {
			term *= near ** 2 / n
			sum += term
		}
		const density = Math.exp(-(near ** 2) / 2) / Math.sqrt(2 * Math.PI)
		return [0.5 + density * sum, density]
	}

	/** The neuron of chapter 1, one line per variable; a and b are time step over time constant. */
	function simulate({a, b, leak = 0, threshold = 1, reset = 0}, arrives, steps) {
		const found = {spikes: [], voltages: [], currents: []}
		let [v, i] = [leak, 0]
		for (let t = 0; t < steps; t++) {
			i = i + arrives(t)
			v = v + a * (leak - v + i)
			if (v > threshold) {
				found.spikes.push(t)
				v = reset
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

	/** Return a colour for a time constant, as a share of the fastest: fast is yellow, slow (ten times that) blue. */
	function bySpeed(share) {
		const place = clamp(Math.log10(share), 0, 1)
		return `stroke: hsl(${Math.round(40 + 190 * place)} 80% var(--lightness))`
	}

	function element(tag, attributes = {}, ...children) {
		const made = document.createElement(tag)
		for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
		made.append(...children)
		return made
	}

	/** Return a list of what `make` returns for 0 to n - 1. */
	const list = (n, make) => Array.from({length: n}, (_, k) => make(k))

	function write(parts, x, y, text, kind, anchor = "start") {
		parts.push(`<text class="${kind}" x="${p(x)}" y="${p(y)}" text-anchor="${anchor}">${text}</text>`)
	}

	/** About `most` round numbers from `low` to `high`. */
	function roundNumbers(low, high, most) {
		const least = (high - low) / most
		const power = 10 ** Math.floor(Math.log10(least))
		const step = power * [1, 2, 5, 10].find(k => k * power >= least * 0.999)
		const found = []
		for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step)
		return found
	}

	/** Axes in a drawing, in pixels from its left and upper edge, and what is drawn on them. */
	class Panel {
		constructor(parts, box, x, y, {logY = false} = {}) {
			Object.assign(this, {parts, box, rangeX: x, rangeY: y, ofY: logY ? Math.log10 : Number})
		}
		share(value, low, high) {
			return clamp((value - low) / (high - low), -50, 50) // far outside is as good as infinity
		}
		x(value) {
			return this.box.x + this.box.width * this.share(value, ...this.rangeX)
		}
		y(value) {
			return this.box.y + this.box.height * (1 - this.share(...[value, ...this.rangeY].map(this.ofY)))
		}
		atX(pixel) {
			const [low, high] = this.rangeX
			return low + ((pixel - this.box.x) / this.box.width) * (high - low)
		}
		atY(pixel) {
			const [low, high] = this.rangeY
			return high - ((pixel - this.box.y) / this.box.height) * (high - low)
		}
		axes({xLabel = "", title = "", xTicks, yTicks, xNames = format, yNames = format}) {
			const {parts, box} = this
			const {x, y, width, height} = box
			const few = (pixels, each) => Math.max(2, Math.floor(pixels / each))
			for (const v of yTicks ?? roundNumbers(...this.rangeY, few(height, 34))) {
				parts.push(`<path class="grid" d="M${x} ${p(this.y(v))}h${width}"/>`)
				write(parts, x - 6, this.y(v) + 4, yNames(v), "tick", "end")
			}
			for (const v of xTicks ?? roundNumbers(...this.rangeX, few(width, 60))) {
				parts.push(`<path class="axis" d="M${p(this.x(v))} ${y + height}v4"/>`)
				write(parts, this.x(v), y + height + 17, xNames(v), "tick", "middle")
			}
			parts.push(`<path class="axis" d="M${x} ${y + height}h${width}"/>`)
			write(parts, x + width, y + height + 33, xLabel, "tick", "end")
			write(parts, x, y - 9, title, "title")
		}
		/** A line through points; it has gaps where a number is missing. */
		line(xs, given, kind, {stairs = false, style = ""} = {}) {
			const ys = given.call ? xs.map(given) : given // numbers, or a function that returns them
			let d = ""
			let pen = "M"
			for (let k = 0; k < xs.length; k++) {
				if (ys[k] === null || Number.isNaN(ys[k])) {
					pen = "M"
					continue
				}
				const [x, y] = [p(this.x(xs[k])), p(this.y(ys[k]))]
				d += pen === "L" && stairs ? `H${x}V${y}` : `${pen}${x} ${y}`
				pen = "L"
			}
			this.clipped(`<path class="${kind}" d="${d}"${style && ` style="${style}"`}/>`)
		}
		/** A line from side to side. */
		level(y, kind) {
			this.line(this.rangeX, [y, y], kind)
		}
		/** Vertical marks; where they hang, and their height, are in pixels. */
		marks(xs, top, height, kind, style = "") {
			const d = xs.map(v => `M${p(this.x(v))} ${p(top)}v${p(height)}`).join("")
			this.parts.push(`<path class="${kind}" d="${d}" style="${style}"/>`)
		}
		/** A grey box. */
		shade([from, to], [low, high]) {
			this.clipped(
				`<path class="shade" d="M${this.x(from)} ${this.y(low)}V${this.y(high)}H${this.x(to)}V${this.y(low)}Z"/>`
			)
		}
		dot(x, y, kind, radius = 5) {
			this.parts.push(`<circle class="${kind}" cx="${p(this.x(x))}" cy="${p(this.y(y))}" r="${radius}"/>`)
		}
		text(x, y, text, kind, {anchor = "start", dx = 0, dy = 0} = {}) {
			write(this.parts, this.x(x) + dx, this.y(y) + dy, text, kind, anchor)
		}
		/** What leaves the axes is cut off, by a drawing in the drawing. */
		clipped(part) {
			const {x, y, width, height} = this.box
			const [left, top, w, h] = [x - 2, y - 2, width + 4, height + 4]
			this.parts.push(
				`<svg x="${left}" y="${top}" width="${w}" height="${h}" viewBox="${left} ${top} ${w} ${h}">${part}</svg>`
			)
		}
	}
	const p = pixels => Math.round(pixels * 10) / 10

	class Figure {
		constructor(place, definition) {
			Object.assign(this, {place, definition, panels: {}, cache: {}, id: `live-${++count}`})
			this.updates = {total: 0, mostInAFrame: 0}
			this.busy = false
			this.defaults = {...definition.state}
			for (const control of definition.controls) if (control.name) this.defaults[control.name] = control.value
			this.state = structuredClone(this.defaults)
			this.build()
			this.finish()
			new ResizeObserver(() => this.width !== this.measured() && this.redraw()).observe(this.canvas)
		}

		build() {
			this.canvas = element("div", {class: "live-canvas"})
			this.drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg")
			const about = {role: "img", "aria-label": this.definition.label, "aria-describedby": `${this.id}-text`}
			for (const name in about) this.drawing.setAttribute(name, about[name])
			this.canvas.append(this.drawing)
			this.message = element("p", {class: "live-text", id: `${this.id}-text`, "aria-live": "polite"})
			const controls = element("div", {class: "live-controls"})
			this.sync = this.definition.controls.map(control => this.addControl(controls, control))
			const again = element("button", {type: "button", class: "live-button"}, "Start again")
			again.addEventListener("click", () => {
				this.state = structuredClone(this.defaults)
				this.change()
			})
			this.buttons(controls).append(again)
			this.place.querySelector("img").replaceWith(this.canvas, this.message, controls)
			this.addHandles()
			this.addPresses()
		}

		buttons(controls) {
			const row = controls.querySelector(".live-buttons") ?? element("div", {class: "live-buttons"})
			controls.append(row)
			return row
		}

		/** Add a control and return what makes it show the state. */
		addControl(controls, control) {
			const id = `${this.id}-${control.name}`
			if (control.press) {
				const button = element("button", {type: "button", class: "live-button"}, control.label)
				button.addEventListener("click", () => control.press(this))
				this.buttons(controls).append(button)
				return () => {}
			}
			if (control.options) {
				const select = element("select", {id})
				for (const [value, text] of control.options) select.append(element("option", {value}, text))
				select.addEventListener("change", () => this.change({[control.name]: select.value}))
				controls.append(element("div", {class: "live-control"}, element("label", {for: id}, control.label), select))
				return () => {
					select.value = this.state[control.name]
				}
			}
			const {low, high, log, whole, unit = "", digits = 3} = control
			const [to, from] = log ? [Math.log, Math.exp] : [Number, Number]
			const step = whole ? 1 : (to(high) - to(low)) / 200
			const input = element("input", {id, type: "range", min: to(low), max: to(high), step})
			const output = element("output", {for: id})
			input.addEventListener("input", () => {
				const value = Number(from(Number(input.value)).toPrecision(digits))
				this.change({[control.name]: clamp(Math.abs(value) < 1e-9 ? 0 : value, low, high)})
			})
			const label = element("label", {for: id})
			label.innerHTML = control.label // a text of ours, with subscripts
			controls.append(element("div", {class: "live-control"}, label, input, output))
			return () => {
				const value = this.state[control.name]
				const text = `${format(value, digits)}${unit && ` ${unit}`}`
				input.value = to(value)
				output.textContent = text
				input.setAttribute("aria-valuetext", text)
			}
		}

		/** Lay buttons of 44 pixels over what can be dragged.
		 *
		 * `handles` returns {label, axis: "x", low, high, step, get(), set(value), place(), text()}, with its place in
		 * pixels. All are one stop of the tab key: arrows up and down go from one to the next. {slider, axis, place()} is
		 * another grip of a slider, for the pointer alone.
		 */
		addHandles() {
			this.handles = (this.definition.handles?.(this) ?? []).map((handle, k, all) => {
				const name = handle.slider
				if (name) {
					const {low, high} = this.definition.controls.find(control => control.name === name)
					const set = value => Object.assign(this.state, {[name]: Math.round(value * 100) / 100})
					Object.assign(handle, {low, high, set, get: () => this.state[name]})
				}
				const role = {
					role: "slider",
					tabindex: k ? -1 : 0,
					"aria-label": handle.label,
					"aria-valuemin": handle.low,
					"aria-valuemax": handle.high
				}
				const kind = {class: `live-handle live-handle-${handle.axis}`}
				const button = element("div", {...kind, ...(name ? {"aria-hidden": true} : role)})
				button.addEventListener("keydown", event => {
					const {key} = event
					const moves = {ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9}
					if (key in moves) this.move(handle, handle.get() + moves[key] * handle.step)
					else if (key === "ArrowUp" || key === "ArrowDown") {
						const keys = all.filter(other => !other.slider)
						const next = keys[(keys.indexOf(handle) + (key === "ArrowUp" ? 1 : keys.length - 1)) % keys.length]
						for (const other of keys) other.button.tabIndex = other === next ? 0 : -1
						next.button.focus()
					} else return
					event.preventDefault()
				})
				button.addEventListener("pointerdown", event => this.grab(event))
				this.canvas.append(button)
				handle.button = button
				return handle
			})
		}

		/** Lay buttons over what can be pressed: `presses` returns {label(), press(), place()}, a box or null. */
		addPresses() {
			this.presses = (this.definition.presses?.(this) ?? []).map(press => {
				const button = element("button", {type: "button", class: "live-press"})
				button.addEventListener("click", () => press.press())
				this.canvas.append(button)
				return {...press, button}
			})
		}

		move(handle, value) {
			handle.set(clamp(value, handle.low, handle.high))
			this.change()
		}

		/** Drag the handle that is nearest to the pointer: buttons of 44 pixels may overlap. */
		grab(event) {
			const position = ({clientX, clientY}) => {
				const box = this.drawing.getBoundingClientRect()
				const scale = this.width / box.width
				return [(clientX - box.left) * scale, (clientY - box.top) * scale]
			}
			const start = position(event)
			const distance = handle => Math.hypot(...handle.place().map((at, k) => at - start[k]))
			const handle = this.handles.reduce((a, b) => (distance(b) < distance(a) ? b : a))
			const target = handle.button
			target.setPointerCapture(event.pointerId)
			if (!handle.slider) target.focus({preventScroll: true})
			const drag = e => this.move(handle, handle.at(...position(e)))
			target.addEventListener("pointermove", drag)
			for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
				target.addEventListener(end, () => target.removeEventListener("pointermove", drag), {once: true})
			event.preventDefault()
		}

		/** Change the state as a reader does: what follows is computed in the next frames. */
		change(values = {}) {
			Object.assign(this.state, values)
			this.showState()
			this.stale = true
			if (this.busy) return
			this.busy = true
			requestAnimationFrame(() => this.frame())
		}

		frame() {
			let spent = this.ahead ?? 0
			this.ahead = 0
			if (!this.work && this.stale) this.begin()
			while (this.work) {
				const {done, value} = this.work.next()
				if (done) {
					this.result = value
					this.work = null
					break
				}
				this.updates.total += value
				if (spent + value > UPDATES_PER_FRAME) {
					this.ahead = value // they are made in the next frame
					break
				}
				spent += value
			}
			this.updates.mostInAFrame = Math.max(this.updates.mostInAFrame, spent)
			if (!this.work || (this.result?.partial && !calm.matches)) this.redraw()
			this.busy = Boolean(this.work || this.stale)
			if (this.busy) requestAnimationFrame(() => this.frame())
			else this.say()
		}

		begin() {
			this.stale = false
			this.work = this.definition.compute(structuredClone(this.state), this)
		}

		/** Compute all that is due at once, without frames. */
		finish() {
			this.begin()
			for (let step = this.work.next(); ; step = this.work.next()) {
				if (step.done) {
					this.result = step.value
					break
				}
				this.updates.total += step.value
			}
			this.work = null
			this.ahead = 0
			this.showState()
			this.redraw()
			this.say(0)
		}

		/** Set values as from a program and return when all is computed and drawn. */
		set(values) {
			for (const name of Object.keys(values))
				if (!(name in this.defaults)) throw new Error(`expected one of ${Object.keys(this.defaults)}, got ${name}`)
			Object.assign(this.state, structuredClone(values))
			this.finish()
			return this
		}

		values() {
			return this.definition.values?.(this) ?? this.result
		}

		measured() {
			return Math.max(280, Math.round(this.canvas.clientWidth || 720))
		}

		showState() {
			for (const show of this.sync) show()
		}

		redraw() {
			this.width = this.measured()
			this.narrow = this.width < 520
			this.parts = []
			const height = this.definition.draw(this, this.result)
			this.drawing.setAttribute("viewBox", `0 0 ${this.width} ${height}`)
			this.drawing.innerHTML = this.parts.join("")
			for (const handle of this.handles ?? []) {
				const [x, y] = handle.place()
				Object.assign(handle.button.style, {left: `${(100 * x) / this.width}%`, top: `${(100 * y) / height}%`})
				if (handle.slider) continue
				handle.button.setAttribute("aria-valuenow", handle.get())
				handle.button.setAttribute("aria-valuetext", handle.text())
			}
			for (const {button, place, label} of this.presses ?? []) {
				const box = place()
				button.hidden = !box
				if (!box) continue
				const share = (pixels, of) => `${(100 * pixels) / of}%`
				button.style.left = share(box.x, this.width)
				button.style.top = share(box.y, height)
				button.style.width = share(box.width, this.width)
				button.setAttribute("aria-label", label())
			}
		}

		/** Say what is seen, a moment after the last change, so that a voice can follow. */
		say(wait = 250) {
			clearTimeout(this.timer)
			const speak = () => this.message.replaceChildren(this.definition.text(this, this.result))
			if (wait) this.timer = setTimeout(speak, wait)
			else speak()
		}

		write(...text) {
			write(this.parts, ...text)
		}

		panel(name, left, top, width, height, x, y, options) {
			this.panels[name] = new Panel(this.parts, {x: left, y: top, width, height}, x, y, options)
			return this.panels[name]
		}
	}

	function mount() {
		for (const [name, definition] of Object.entries(definitions))
			for (const place of document.querySelectorAll(`figure.live-${name}`))
				if (!place.figure) place.figure = new Figure(place, definition)
	}

	window.liveFigures = {
		bySpeed,
		calm,
		clamp,
		format,
		impulse,
		list,
		normal,
		simulate,
		total,
		define(name, definition) {
			definitions[name] = definition
		}
	}
	document.addEventListener("DOMContentLoaded", mount)
})()
