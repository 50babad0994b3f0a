"use strict";
(() => {
  const all = (selector, where) => Array.from((where || document).querySelectorAll(selector));
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // ---- dark and light: the reader's choice outlives the page where the browser keeps anything for files
  const theme = document.getElementById("theme"), root = document.documentElement;
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const kept = (value) => {
    try { return value ? localStorage.setItem("cpost-theme", value) : localStorage.getItem("cpost-theme"); } catch { return null; }
  };
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Show the page ${isDark() ? "light" : "dark"}`); };
  if (kept()) root.dataset.theme = kept() === "dark" ? "dark" : "light";
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; kept(root.dataset.theme); name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
  document.getElementById("keys-help").hidden = false;

  // ---- points of a line: pieces of [time, value], read from the very path that is drawn
  const points = (path) => {
    const pieces = [];
    let piece = null, at = 0, value = 0;
    for (const [, command, rest] of path.getAttribute("d").matchAll(/([MlvhV])([^MlvhV]*)/g)) {
      const n = (rest.match(/-?\d+/g) || []).map(Number);
      if (command === "M") { [at, value] = n; piece = [[at, value]]; pieces.push(piece); }
      if (command === "v") { value += n[0]; piece[0] = [at, value]; }
      if (command === "l") for (let i = 0; i < n.length; i += 2) { at += n[i]; value += n[i + 1]; piece.push([at, value]); }
    }
    return pieces;
  };
  // The highest point within reach of a time, so that no peak is stepped over; else the nearest of the piece that holds
  // the time; none within a gap.
  const valueAt = (pieces, at, reach) => {
    let near = null, highest = null;
    for (const piece of pieces) {
      if (at < piece[0][0] - reach || at > piece[piece.length - 1][0] + reach) continue;
      let low = 0, high = piece.length;
      while (low < high) { const middle = (low + high) >> 1; if (piece[middle][0] < at - reach) low = middle + 1; else high = middle; }
      for (let i = Math.max(0, low - 1); i < piece.length && (i <= low || piece[i][0] <= at + reach); i++) {
        const each = piece[i], far = Math.abs(each[0] - at);
        if (far <= reach && (!highest || each[1] > highest[1])) highest = each;
        if (!near || far < Math.abs(near[0] - at)) near = each;
      }
    }
    return highest || near;
  };

  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5];
  const clock = (at, step) => {
    const seconds = at / 1000;
    if (step < 1000) return `${seconds.toFixed(Math.ceil(-Math.log10(step / 1000)))} s`;
    const whole = Math.round(seconds), minutes = Math.floor(whole / 60), two = (n) => String(n).padStart(2, "0");
    if (step < 60000 && minutes < 2) return `${whole} s`;
    return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
  };

  class Chart {
    constructor(figure, group) {
      this.figure = figure;
      this.group = group;
      const d = figure.dataset;
      this.end = Number(d.end); this.top = Number(d.top); this.steps = Number(d.steps);
      this.unit = d.unit; this.decimals = Number(d.decimals);
      this.plot = figure.querySelector(".plot");
      this.data = figure.querySelector(".data");
      this.keys = all(".key", figure);
      this.lines = all("path.line", figure).map((path) => ({ path, pieces: points(path) }));
      this.cursor = this.overlay("cursor");
      this.chosen = this.overlay("chosen");
      this.label = this.plot.getAttribute("aria-label");
      this.plot.tabIndex = 0;
      this.plot.setAttribute("role", "slider");
      this.plot.setAttribute("aria-valuemin", "0");
      this.plot.setAttribute("aria-valuemax", String(this.end));
      this.plot.setAttribute("aria-valuenow", "0");
      this.plot.setAttribute("aria-describedby", "keys-help");
      this.listen();
    }
    overlay(kind) {
      const made = document.createElement("div");
      made.className = kind;
      made.hidden = true;
      this.plot.append(made);
      return made;
    }
    listen() {
      const at = (event) => {
        const box = this.plot.getBoundingClientRect();
        return this.group.from + clamp((event.clientX - box.left) / box.width, 0, 1) * (this.group.to - this.group.from);
      };
      this.plot.addEventListener("pointermove", (event) => { this.group.point(at(event)); if (this.drag !== undefined) this.choose(at(event)); });
      this.plot.addEventListener("pointerleave", () => { if (document.activeElement !== this.plot) this.group.point(null); });
      this.plot.addEventListener("pointerdown", (event) => {
        if (event.pointerType !== "mouse" || event.button) return;
        this.drag = at(event);
        this.plot.setPointerCapture(event.pointerId);
      });
      this.plot.addEventListener("pointerup", (event) => {
        if (this.drag === undefined) return;
        const other = at(event), low = Math.min(this.drag, other), high = Math.max(this.drag, other);
        this.drag = undefined;
        this.chosen.hidden = true;
        if (high - low > (this.group.to - this.group.from) / 50) this.group.zoom(low, high);
      });
      this.plot.addEventListener("dblclick", () => this.group.zoom(0, this.group.end));
      this.plot.addEventListener("keydown", (event) => this.key(event));
      this.plot.addEventListener("focus", () => { if (this.group.at === null) this.group.point(this.group.from); });
      this.plot.addEventListener("blur", () => this.group.point(null));
      this.keys.forEach((key) => key.addEventListener("click", () => {
        const shown = key.getAttribute("aria-pressed") !== "true";
        key.setAttribute("aria-pressed", String(shown));
        this.lines[Number(key.dataset.line)].path.classList.toggle("hidden", !shown);
      }));
    }
    key(event) {
      const { from, to, end } = this.group, wide = to - from, at = this.group.at ?? from;
      const step = wide / (event.shiftKey ? 20 : 200);
      const moves = { ArrowLeft: at - step, ArrowDown: at - step, ArrowRight: at + step, ArrowUp: at + step, PageDown: at - wide / 10, PageUp: at + wide / 10, Home: from, End: to };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in moves) this.group.point(clamp(moves[event.key], 0, end), true);
      else if (event.key === "+" || event.key === "=") this.group.zoom(at - wide / 4, at + wide / 4);
      else if (event.key === "-") this.group.zoom(at - wide, at + wide);
      else if (event.key === "Escape") this.group.zoom(0, end);
      else return;
      event.preventDefault();
    }
    choose(at) {
      const { from, to } = this.group, low = Math.min(this.drag, at), high = Math.max(this.drag, at);
      this.chosen.hidden = false;
      this.chosen.style.left = `${100 * (low - from) / (to - from)}%`;
      this.chosen.style.width = `${100 * (high - low) / (to - from)}%`;
    }
    text(value) {
      return `${(value / this.steps).toLocaleString("en-US", { minimumFractionDigits: this.decimals, maximumFractionDigits: this.decimals })} ${this.unit}`;
    }
    // Read out what lies at a time (ms); null = nothing.
    read(at) {
      const { from, to } = this.group, reach = (to - from) / 400;
      const output = this.figure.querySelector(".at");
      this.cursor.hidden = at === null || at > this.end;
      output.textContent = at === null ? "" : `at ${(at / 1000).toFixed(to - from < 2e4 ? 3 : to - from < 2e5 ? 2 : 1)} s`;
      const said = [];
      this.keys.forEach((key, index) => {
        const found = at === null ? null : valueAt(this.lines[index].pieces, at, reach);
        const text = at === null ? "" : found ? this.text(found[1]) : "-";
        key.querySelector(".now").textContent = text;
        said.push(`${key.firstElementChild.nextSibling.textContent.trim()} ${text}`);
      });
      if (at === null) return;
      this.cursor.style.left = `${100 * (at - from) / (to - from)}%`;
      this.plot.setAttribute("aria-valuenow", String(Math.round(at)));
      this.plot.setAttribute("aria-valuetext", `${output.textContent}: ${said.join(", ")}`);
    }
    draw() {
      const { from, to } = this.group, wide = to - from, percent = (at) => 100 * (at - from) / wide;
      this.data.setAttribute("transform", `matrix(${1000 / wide} 0 0 ${-1000 / this.top} ${-1000 * from / wide} 1000)`);
      all(".marks span", this.figure).forEach((mark) => {
        const place = percent(Number(mark.dataset.at));
        mark.style.left = `${place}%`;
        mark.style.visibility = place < -.01 || place > 100.01 ? "hidden" : "visible";
      });
      all(".stretches span", this.figure).forEach((stretch) => {
        const low = clamp(percent(Number(stretch.dataset.from)), 0, 100), high = clamp(percent(Number(stretch.dataset.to)), 0, 100);
        stretch.style.left = `${low}%`;
        stretch.style.width = `${high - low}%`;
      });
      const step = steps.find((each) => wide / each <= 8) || wide / 4, ticks = [];
      for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
        const tick = document.createElement("span");
        tick.style.left = `${percent(at)}%`;
        tick.className = percent(at) > 96 ? "last" : "";
        tick.textContent = clock(at, step);
        ticks.push(tick);
      }
      this.figure.querySelector(".times").replaceChildren(...ticks);
    }
  }

  // The charts of one section have one time axis: a cursor, and what is looked at closer, are all of theirs.
  class Group {
    constructor(figures) {
      this.end = Math.max(...figures.map((figure) => Number(figure.dataset.end)));
      this.from = 0; this.to = this.end; this.at = null;
      this.charts = figures.map((figure) => new Chart(figure, this));
    }
    point(at, follow) {
      if (follow && (at < this.from || at > this.to)) {
        const wide = this.to - this.from, from = clamp(at - wide / 2, 0, this.end - wide);
        this.zoom(from, from + wide);
      }
      this.at = at;
      this.charts.forEach((chart) => chart.read(at));
    }
    zoom(from, to) {
      const least = Math.min(20, this.end);
      this.from = clamp(from, 0, this.end - least);
      this.to = clamp(to, this.from + least, this.end);
      this.charts.forEach((chart) => chart.draw());
      if (this.at !== null) this.point(clamp(this.at, this.from, this.to));
    }
  }

  // A curve's few points are read out one by one, each in the words that are its own.
  class Curve {
    constructor(figure) {
      this.plot = figure.querySelector(".plot");
      this.output = figure.querySelector(".at");
      this.dots = all(".plot .dot", figure);
      this.plot.tabIndex = 0;
      this.plot.setAttribute("role", "slider");
      this.plot.setAttribute("aria-valuemin", "1");
      this.plot.setAttribute("aria-valuemax", String(this.dots.length));
      this.plot.setAttribute("aria-describedby", "keys-help");
      this.read(null);
      this.plot.addEventListener("pointermove", (event) => this.read(this.nearest(event)));
      this.plot.addEventListener("pointerleave", () => { if (document.activeElement !== this.plot) this.read(null); });
      this.plot.addEventListener("focus", () => { if (this.at === null) this.read(0); });
      this.plot.addEventListener("blur", () => this.read(null));
      this.plot.addEventListener("keydown", (event) => this.key(event));
    }
    nearest(event) {
      const far = this.dots.map((dot) => {
        const box = dot.lastElementChild.getBoundingClientRect();
        return Math.hypot(event.clientX - (box.left + box.right) / 2, event.clientY - (box.top + box.bottom) / 2);
      });
      return far.indexOf(Math.min(...far));
    }
    key(event) {
      const at = this.at ?? 0, last = this.dots.length - 1;
      const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last };
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in moves)) return;
      this.read(clamp(moves[event.key], 0, last));
      event.preventDefault();
    }
    read(at) {
      this.at = at;
      this.dots.forEach((dot, index) => dot.classList.toggle("on", index === at));
      const text = at === null ? "" : this.dots[at].firstElementChild.textContent;
      this.output.textContent = text;
      this.plot.setAttribute("aria-valuenow", String((at ?? 0) + 1));
      this.plot.setAttribute("aria-valuetext", text);
    }
  }
  all("figure.curve").forEach((figure) => new Curve(figure));
  all(".charts").forEach((charts) => new Group(Array.from(charts.children)));
  addEventListener("beforeprint", () => all("details").forEach((each) => { each.open = true; }));
})();
