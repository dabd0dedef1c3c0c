// Lines over time, for one body: left dashed, right solid.

const WINDOW = 20; // seconds shown at once of a longer film

class Chart {
  // `series`: [{name, left, right}]; `value(body, what, t)` a number; `words(number)` how it is told.
  constructor(element, film, series, value, words, seek) {
    Object.assign(this, { element, film, series, value, words, known: new Map(), chosen: 0 });
    this.canvas = element.querySelector("canvas");
    this.cursor = element.querySelector(".cursor");
    this.values = element.querySelector(".values");
    this.whose = element.querySelector(".whose");
    element.hidden = !series.length;
    const buttons = series.map(({ name }, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        this.choose(i);
      });
      return button;
    });
    this.buttons = buttons;
    element.querySelector(".group").append(...buttons);
    const plot = element.querySelector(".plot");
    const go = (event) => {
      if (!event.buttons && event.type !== "click") return;
      const box = plot.getBoundingClientRect(),
        share = (event.clientX - box.left - this.left) / (box.width - this.left - 4);
      seek(Math.round(this.from + share * (this.to - 1 - this.from)));
    };
    plot.addEventListener("click", go);
    plot.addEventListener("pointermove", go);
    this.left = 34;
  }

  choose(index) {
    this.chosen = index;
    this.buttons.forEach((b, i) => b.setAttribute("aria-pressed", i === index));
    this.drawn = null;
    this.show(this.body, this.frame, this.theme);
  }

  lines() {
    const { left, right } = this.series[this.chosen];
    return JSON.stringify(left) === JSON.stringify(right)
      ? [["both", left]]
      : [
          ["left", left],
          ["right", right],
        ];
  }

  at(body, what, t) {
    const key = `${body.index} ${JSON.stringify(what)}`;
    if (!this.known.has(key)) this.known.set(key, new Float32Array(this.film.frames).fill(Infinity)); // Infinity: not asked yet
    const known = this.known.get(key);
    if (known[t] === Infinity) known[t] = this.value(body, what, t);
    return known[t];
  }

  show(body, frame, theme) {
    if (this.element.hidden) return;
    Object.assign(this, { body, frame, theme });
    this.whose.textContent = many ? body.name : "";
    this.whose.style.setProperty("--whose", colourOf(body.index));
    const width = this.canvas.clientWidth,
      span = Math.min(this.film.frames, Math.round(WINDOW * this.film.fps));
    if (this.from === undefined || frame < this.from || frame >= this.to)
      this.from = Math.max(0, Math.min(this.film.frames - span, frame - Math.round(0.1 * span)));
    this.to = this.from + span;
    const drawn = `${body.index} ${this.from} ${this.chosen} ${width} ${theme.name}`;
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.draw(width);
    }
    const x = this.x(frame, width);
    this.cursor.style.transform = `translateX(${x}px)`;
    this.values.replaceChildren(
      ...this.lines().map(([side, what]) => {
        const span = document.createElement("span"),
          now = this.at(body, what, frame);
        span.className = side;
        const seen = Number.isFinite(now);
        span.textContent = `${side === "both" ? "" : `${side} `}${seen ? this.words(now) : "–"}`;
        if (!seen) span.title = "not seen";
        return span;
      }),
    );
  }

  x(frame, width) {
    return this.left + ((frame - this.from) / Math.max(1, this.to - 1 - this.from)) * (width - this.left - 4);
  }

  // [bottom, top, tick] of the values: from 0 for speeds, in steps of a clock's hand for angles.
  axis(low, high) {
    if (this.words(0).endsWith("s")) return rounded(0, high);
    const tick = high - low > 90 ? 60 : 30,
      bottom = Math.floor(low / tick) * tick;
    return [bottom, Math.max(bottom + tick, Math.ceil(high / tick) * tick), tick];
  }

  draw(width) {
    const { canvas, theme, film } = this,
      height = canvas.clientHeight,
      ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d"),
      step = Math.max(1, Math.floor((this.to - this.from) / width)),
      lines = [];
    let low = Infinity,
      high = -Infinity;
    for (const [side, what] of this.lines()) {
      const values = [];
      for (let t = this.from; t < this.to; t += step) {
        const v = this.at(this.body, what, t);
        values.push([t, v]);
        if (Number.isFinite(v)) {
          low = Math.min(low, v);
          high = Math.max(high, v);
        }
      }
      lines.push([side, values]);
    }
    if (low > high) {
      low = 0;
      high = 1;
    }
    const [bottom, top, tick] = this.axis(low, high),
      foot = height - 18,
      head = 6;
    const y = (v) => foot - ((v - bottom) / (top - bottom)) * (foot - head);
    pen.scale(ratio, ratio);
    pen.font = '11.5px system-ui, "DejaVu Sans", sans-serif';
    pen.textBaseline = "middle";
    pen.lineWidth = 1;
    for (let v = bottom; v <= top + 1e-9; v += tick) {
      pen.strokeStyle = theme.line;
      pen.fillStyle = theme.soft;
      pen.beginPath();
      pen.moveTo(this.left, y(v));
      pen.lineTo(width - 4, y(v));
      pen.stroke();
      pen.textAlign = "right";
      pen.fillText(`${+v.toFixed(2)}`, this.left - 6, y(v));
    }
    if (film.now !== null && film.now < this.to) {
      pen.fillStyle = theme.future;
      pen.globalAlpha = 0.13;
      const x = this.x(film.now - 1, width);
      pen.fillRect(x, head, width - 4 - x, foot - head);
      pen.globalAlpha = 1;
    }
    const seconds = (this.to - this.from) / film.fps,
      unitOf = rounded(0, Math.max(seconds, 1e-6), Math.max(2, Math.floor(width / 110)))[2];
    pen.fillStyle = theme.soft;
    pen.textAlign = "center";
    const zero = film.now === null ? 0 : (film.now - 1) / film.fps,
      first = this.from / film.fps - zero; // a forecast counts from now
    for (let s = Math.ceil(first / unitOf) * unitOf; s <= first + seconds; s += unitOf) {
      const x = this.x((s + zero) * film.fps, width),
        words =
          film.now !== null && Math.abs(s) < 1e-6
            ? "now"
            : `${film.now !== null && s > 0 ? "+" : ""}${+s.toFixed(2)} s`;
      if (x < width - 18) pen.fillText(words, Math.max(x, this.left + 8), height - 8);
    }
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    for (const [side, values] of lines) {
      pen.strokeStyle = side === "left" ? theme.left : side === "right" ? theme.right : theme.accent;
      pen.setLineDash(side === "left" ? [5, 3] : []);
      pen.beginPath();
      let down = false;
      for (const [t, v] of values) {
        if (Number.isFinite(v)) {
          const x = this.x(t, width);
          if (down) pen.lineTo(x, y(v));
          else pen.moveTo(x, y(v));
        }
        down = Number.isFinite(v);
      }
      pen.stroke();
    }
  }
}

// [bottom, top, tick] with a round tick, about `count` of them.
function rounded(low, high, count = 3) {
  const rough = Math.max((high - low) / count, 1e-6),
    power = 10 ** Math.floor(Math.log10(rough));
  const tick = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const bottom = Math.floor(low / tick) * tick,
    top = Math.ceil(high / tick) * tick;
  return [bottom, top > bottom ? top : bottom + tick, tick];
}
