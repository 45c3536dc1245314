// What every page does by itself: boxes that scroll sideways say so, paper is light, and search works from a folder.
(() => {
  "use strict";

  const BOXES = [
    "div.math mjx-container",
    "span.math.wide",
    ".pst-scrollable-table-container",
    ".table-wrapper",
    ".wide-picture",
    ".cell_output .output.text_html",
    ".cell_output pre",
    "div.highlight pre",
  ].join(", ");
  const NAMES = [["mjx-container, .math", "Formula"], ["pre", "Text"], [".wide-picture", "Figure"], ["*", "Table"]];

  const HIDDEN = 8; // pixels, about half a letter: a fade where less is hidden would cover more than it hints at

  // A box that is wider than it shows can be reached with the keyboard, has a name, and fades where it goes on.
  function mark(box) {
    const room = box.scrollWidth - box.clientWidth;
    const inText = box.matches("span.math:not(.wide)"); // of a line again, after the window grew
    const scrolls = room > 0 && !inText;
    box.classList.toggle("scrolls", scrolls);
    box.classList.toggle("more-left", scrolls && box.scrollLeft > HIDDEN);
    box.classList.toggle("more-right", scrolls && room - box.scrollLeft > HIDDEN);
    if (scrolls) {
      const name = NAMES.find(([selector]) => box.matches(selector))[1];
      box.setAttribute("tabindex", "0");
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${name}, scrolls sideways`);
    } else if (box.getAttribute("role") === "group") {
      ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
    }
  }

  // A formula in a line of text that is wider than the column becomes a box of its own.
  function widen() {
    document.querySelectorAll("span.math").forEach((formula) => {
      const width = formula.querySelector("mjx-math")?.getBoundingClientRect().width ?? 0;
      const column = formula.closest("p, li, dd, td, th, figcaption, div").clientWidth;
      formula.classList.toggle("wide", width > column + 1);
      if (formula.matches(".scrolls:not(.wide)")) mark(formula); // a box no longer: nobody else looks at it
    });
  }

  // what a box holds may grow after the box stands, as formulas in a table do
  const resized = new ResizeObserver((entries) => {
    entries.map(({ target }) => target.closest(`${BOXES}, span.math`)).forEach((box) => mark(box));
  });
  const watched = new WeakSet();
  function watch() {
    widen();
    document.querySelectorAll(BOXES).forEach((box) => {
      if (watched.has(box)) return;
      watched.add(box);
      box.addEventListener("scroll", () => mark(box), { passive: true });
      resized.observe(box);
      if (box.firstElementChild) resized.observe(box.firstElementChild);
    });
  }

  function start() {
    const typeset = window.MathJax?.startup?.promise ?? Promise.resolve();
    Promise.all([typeset, document.fonts.ready]).then(() => requestAnimationFrame(watch));
    window.addEventListener("resize", watch);
  }

  // Dark pages are for screens.
  const root = document.documentElement;
  let onScreen = null;
  function toPaper(paper) {
    if (paper && onScreen === null) {
      onScreen = root.dataset.theme ?? "";
      root.dataset.theme = "light";
    } else if (!paper && onScreen !== null) {
      root.dataset.theme = onScreen;
      onScreen = null;
    }
  }
  window.addEventListener("beforeprint", () => toPaper(true));
  window.addEventListener("afterprint", () => toPaper(false));
  window.matchMedia("print").addEventListener("change", (print) => toPaper(print.matches));

  // Search cites a line of each page that it finds, and asks a server for it: in a folder there is none.
  if (window.location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object")
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  if (document.readyState === "complete") start();
  else window.addEventListener("load", start);
})();
