// One picture of everything: the people in 3D, the skeletons on the image, the strip, the lanes, the words.

const ahead = () => film.now !== null && state.frame >= film.now;

function gather() {
  for (const list of Object.values(lists)) list.count = 0;
  const t = state.frame + state.share;
  for (const body of film.bodies) {
    const faint = state.picked !== null && state.picked !== body.index;
    if (ahead()) {
      const seen = body.pose(film.now - 1);
      if (seen) addBody(lists, film, body, seen, theme.haze, 0.86);
      path(body, film.now - 1, state.frame);
    }
    if (body.pale && film.now !== null && !ahead() && !(state.picked === body.index)) continue; // so far it is what the others are
    const pose = body.pose(t);
    if (pose) addBody(lists, film, body, pose, theme.haze, faint ? 0.8 : body.pale ? 0.6 : ahead() ? 0.22 : 0);
    if (body.cloud && !faint) addCloud(body);
  }
}

// Where a body's root went, as dots on the floor.
function path(body, from, to) {
  const step = Math.max(1, Math.round(film.fps / 12));
  for (let t = from; t <= to; t += step) {
    const pose = body.pose(t),
      root = pose && film.joint(pose, film.root);
    if (root) lists.solids.add([root[0], root[1], 0.004], [root[0], root[1], 0.004], 0.022, 0.022, rgb(theme.future));
  }
}

let spread = null;
function addCloud(body) {
  spread = spread?.length === body.cloud.width ? spread : new Float32Array(body.cloud.width);
  if (!body.isThere(state.frame) || !body.cloud.read(state.frame, spread)) return;
  const colour = rgb(colourOf(body.index));
  for (let i = 0; i < spread.length; i += 3) {
    const p = spread.subarray(i, i + 3);
    if (!Number.isNaN(p[0])) lists.cloud.add(p, p, 0.018, 0.018, colour);
  }
}

function drawSpace(view) {
  gather();
  scene.render(view, theme, follow.centre, Math.max(7, 3.2 * (follow.across + follow.reach)));
  const box = $("space"),
    project = view.projector(box.clientWidth, box.clientHeight),
    tags = $("tags").children;
  const placed = [];
  film.bodies.forEach((body, i) => {
    const tag = tags[i],
      pose = many ? body.pose(state.frame + state.share) : null;
    let top = null;
    if (pose)
      for (let j = 0; j < film.joints.length; j++)
        if (pose[3 * j + 2] > (top ? top[2] : -1e9)) top = film.joint(pose, j);
    const at = top && project(plus(film.joint(pose, film.root), [0, 0, 1], top[2] + 0.24 - pose[3 * film.root + 2]));
    tag.hidden = !at || at[2] < 0.1;
    if (!tag.hidden) {
      const spot = free(at, tag, placed);
      tag.style.transform = `translate(${spot[0].toFixed(1)}px, ${spot[1].toFixed(1)}px) translate(-50%, -50%)`;
    }
    tag.style.opacity = state.picked === null || state.picked === i ? 1 : 0.45;
  });
  document.body.dataset.frame = state.frame;
}

// Where a tag goes that would be at [x, y]: above those placed before which it would cover, the lowest first, as it may
// cover the next one there; and comes there by degrees.
function free([x, y], tag, placed) {
  tag.wide ||= tag.offsetWidth;
  tag.tall ||= tag.offsetHeight + 2;
  for (const other of placed) {
    const over = (tag.wide + other.wide) / 2 - Math.abs(x - other.x),
      under = tag.tall - Math.abs(y - other.y);
    if (over > 0 && under > 0)
      y -= (y - other.y + tag.tall) * Math.min(1, over / APART) * Math.min(1, under / APART);
  }
  placed.push({ x, y, wide: tag.wide });
  placed.sort((a, b) => b.y - a.y);
  return [x, y];
}
const APART = 4; // pixels of overlap that a tag has given way at

// Skeletons over the image.
function drawScreen(canvas = $("overlay"), pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1) {
  if ($("screen").hidden) return;
  const width = canvas.clientWidth,
    height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const fit = Math.min(width / film.size[0], height / film.size[1]);
  pen.setTransform(
    ratio * fit,
    0,
    0,
    ratio * fit,
    (ratio * (width - film.size[0] * fit)) / 2,
    (ratio * (height - film.size[1] * fit)) / 2,
  );
  if (!filmed && !picture) {
    pen.strokeStyle = "#2a3140";
    pen.lineWidth = 1 / fit;
    pen.strokeRect(0, 0, ...film.size);
  }
  pen.lineCap = "round";
  const several = film.bodies.filter((body) => body.pixels).length > 1;
  for (const body of film.bodies) {
    const points = body.pixelsAt(state.frame);
    if (!points) continue;
    pen.globalAlpha = state.picked === null || state.picked === body.index ? 1 : 0.3;
    const line = (i, j, colour, wide, dash = []) => {
      pen.strokeStyle = colour;
      pen.lineWidth = wide;
      pen.setLineDash(dash);
      pen.beginPath();
      pen.moveTo(points[2 * i], points[2 * i + 1]);
      pen.lineTo(points[2 * j], points[2 * j + 1]);
      pen.stroke();
    };
    const wide = Math.max(3.2 / fit, Math.max(...film.size) / 260);
    const bones = film.bones.filter(([i, j]) => !Number.isNaN(points[2 * i] + points[2 * j]));
    for (const [i, j] of bones) line(i, j, "rgba(0, 0, 0, .45)", wide + 2.4 / fit);
    for (const [i, j, side] of bones) line(i, j, side === 1 ? "#ff9350" : side === 2 ? "#4aa3f0" : "#f4f4fb", wide);
    for (const [i, j, side] of bones)
      if (side === 1) {
        pen.lineCap = "butt";
        line(i, j, "#fff1e6", wide, [wide * 0.5, wide * 1.7]);
        pen.lineCap = "round";
      }
    pen.setLineDash([]);
    if (!several) continue;
    let top = -1;
    for (let j = 0; j < film.joints.length; j++)
      if (points[2 * j + 1] < (top < 0 ? Infinity : points[2 * top + 1])) top = j;
    if (top < 0) continue;
    const r = 9 / fit,
      x = points[2 * top],
      y = Math.max(1.2 * r, points[2 * top + 1] - 2.1 * r);
    pen.fillStyle = colourOf(body.index);
    pen.beginPath();
    pen.arc(x, y, r, 0, 7);
    pen.fill();
    pen.fillStyle = "#fff";
    pen.font = `600 ${1.25 * r}px system-ui, "DejaVu Sans", sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(short(body), x, y + 0.05 * r);
  }
  pen.globalAlpha = 1;
}

const short = (body) => (/^Person \d+$/.test(body.name) ? body.name.slice(7) : body.name[0]);

// The strip: each body small, seen from the film's side.
function drawStrip() {
  const a = (film.azimuth * Math.PI) / 180;
  for (const button of $("people").children) {
    const body = film.bodies[button.body],
      canvas = button.querySelector("canvas");
    if (!body) continue;
    const there = body.isThere(state.frame),
      pose = body.pose(body.nearest(state.frame)),
      ratio = 2;
    button.classList.toggle("away", !there);
    button.querySelector("small").textContent = there ? "here" : body.present.length ? "away" : "never seen";
    if (canvas.width !== 40 * ratio) {
      canvas.width = 40 * ratio;
      canvas.height = 50 * ratio;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (!pose) continue;
    const root = film.joint(pose, film.root),
      scale = (23 * ratio) / body.reach;
    const at = (j) => {
      const d = minus(film.joint(pose, j), root);
      return [20 * ratio + scale * (d[1] * Math.cos(a) - d[0] * Math.sin(a)), 25 * ratio - scale * d[2]];
    };
    pen.lineCap = "round";
    for (const [i, j, side] of film.bones) {
      const [p, q] = [at(i), at(j)];
      if (Number.isNaN(p[0] + q[0])) continue;
      pen.strokeStyle = side === 1 ? "#e5763b" : side === 2 ? "#2f83cf" : colourOf(body.index);
      pen.lineWidth = side ? 2.6 * ratio : 4 * ratio;
      pen.beginPath();
      pen.moveTo(...p);
      pen.lineTo(...q);
      pen.stroke();
    }
    const head = film.joints.indexOf("head");
    if (head >= 0) {
      pen.fillStyle = colourOf(body.index);
      pen.beginPath();
      pen.arc(...at(head), 3.6 * ratio, 0, 7);
      pen.fill();
    }
  }
}

function drawLanes() {
  if (single) return;
  const canvas = $("lanes"),
    width = canvas.clientWidth,
    height = canvas.clientHeight,
    ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d"),
    x = (frame) => 6 + ((width - 12) * frame) / Math.max(1, film.frames - 1);
  pen.scale(ratio, ratio);
  pen.fillStyle = theme.line;
  pen.beginPath();
  pen.roundRect(0, 4, width, height - 8, 6);
  pen.fill();
  const shownBodies = film.bodies,
    tall = (height - 12) / shownBodies.length;
  shownBodies.forEach((body, i) => {
    pen.fillStyle = colourOf(body.index);
    for (const [first, end] of body.present) {
      pen.globalAlpha = state.picked === null || state.picked === i ? 0.85 : 0.28;
      pen.beginPath();
      pen.roundRect(
        x(first) - 2,
        6 + i * tall,
        Math.max(3, x(end - 1) - x(first) + 4),
        Math.max(1.2, tall - 1),
        Math.min(3, tall / 3),
      );
      pen.fill();
    }
  });
  pen.globalAlpha = 1;
  if (film.now === null) return;
  const from = x(film.now - 1);
  pen.save();
  pen.beginPath();
  pen.rect(from, 4, width - from, height - 8);
  pen.clip();
  pen.strokeStyle = theme.card;
  pen.globalAlpha = 0.55;
  pen.lineWidth = 2.5;
  for (let s = from - height; s < width; s += 9) {
    pen.beginPath();
    pen.moveTo(s, height);
    pen.lineTo(s + height, 0);
    pen.stroke();
  }
  pen.restore();
  pen.fillStyle = theme.future;
  pen.fillRect(from - 1, 1, 2, height - 2);
}

// "0.5 s ago", "now", "in 0.5 s": when a forecast begins, time counts from there.
function when() {
  const seconds = film.timeOf(state.frame);
  if (film.now === null) return `${seconds.toFixed(2)} s`;
  const from = (state.frame - film.now + 1) / film.fps,
    words = Math.abs(from).toFixed(Math.abs(from) < 0.1 ? 2 : 1);
  return Math.abs(from) < 1e-6 ? "now" : from < 0 ? `${words} s ago` : `in ${words} s`;
}

function tell() {
  const scrub = $("scrub"),
    count = `${state.frame + 1} of ${film.frames}`;
  if (Number(scrub.value) !== state.frame) scrub.value = state.frame;
  scrub.setAttribute("aria-valuetext", `frame ${count}, ${when()}`);
  $("clock").firstChild.textContent = when();
  $("clock").lastChild.textContent = count;
  const gone =
    state.picked !== null && !film.bodies[state.picked].isThere(state.frame) ? film.bodies[state.picked].name : null;
  const badge = $("badge"),
    nobody = !film.bodies.some((b) => b.isThere(state.frame));
  const text = gone
    ? `${gone} is not ${film.bodies[state.picked].present.length ? "here now" : "in this film"}`
    : nobody
      ? "Nobody is here now"
      : film.now === null
        ? ""
        : ahead()
          ? `Forecast: ${when()}`
          : `Seen: ${when()}`;
  if (badge.textContent !== text) badge.textContent = text;
  badge.classList.toggle("future", ahead() && !gone && !nobody);
}

// The body that the charts are about: the one picked, else the one who is there longest, of those who are there now.
function subject() {
  if (state.picked !== null) return film.bodies[state.picked];
  const long = (b) => b.present.reduce((sum, [first, end]) => sum + end - first, 0);
  const here = film.bodies.filter((b) => b.isThere(state.frame));
  return (here.length ? here : film.bodies).reduce((best, b) => (long(b) > long(best) ? b : best));
}

let stripped = 0;
function draw(dt) {
  const view = goal(dt),
    ease = calm.matches || dt === null || shown === null ? 1 : 1 - Math.exp(-dt / 0.09);
  shown = shown === null ? view : shown.towards(view, ease);
  const settled = shown.near(view);
  if (settled && !state.playing) shown = view;
  drawSpace(shown);
  drawScreen();
  tell();
  const now = performance.now();
  if (!state.playing || now - stripped > 66) {
    stripped = now;
    if (many) drawStrip();
    for (const chart of charts) chart.show(subject(), state.frame, theme);
  }
  return settled;
}

function wake() {
  if (waiting || !scene) return;
  waiting = true;
  requestAnimationFrame(tick);
}

function tick(time) {
  waiting = false;
  const dt = last === null ? null : Math.min(0.25, (time - last) / 1000);
  if (state.playing) advance(dt ?? 0);
  if (state.playing && dt !== null) keepPace(dt);
  last = time;
  ticks++;
  const settled = draw(dt ?? 1 / 60);
  if (state.playing || !settled) wake();
  else last = null;
}
// Where half of the pictures come too slowly for two seconds, 3D is drawn coarser; without a graphics card, outlined.
// That is said, and nothing goes back by itself; a reader who has chosen keeps what they chose.
function keepPace(dt) {
  if (chosen || coarse <= 0.5 || scene instanceof Flat) return;
  paces.push(dt);
  if (paces.reduce((sum, each) => sum + each) < 2) return;
  const middle = paces.sort((a, b) => a - b)[paces.length >> 1];
  paces = [];
  if (middle < 1 / 48) return;
  if (scene.slow) return shade(false, "This machine draws slowly: bodies are outlined from now on.");
  coarse *= 0.75;
  resize();
}
let paces = [], // seconds that each of the last pictures took
  coarse = 1,
  chosen = false;

// Bodies are shaded, or else outlined. `why`: what a reader is told who did not ask for it.
function shade(on, why = "") {
  scene.end();
  scene = makeScene(renewed($("scene")), lists, on);
  pointers($("scene"));
  coarse = 1;
  const shaded = scene instanceof Scene;
  if (on && !shaded) why = "This browser cannot shade bodies: it has no WebGL 2.";
  $("shaded").setAttribute("aria-pressed", shaded);
  notice(why && !on ? `${why} “Shaded”, above, shades them again.` : why);
  resize();
}

// What the reader is told in the 3D view, for a while.
function notice(text) {
  $("notice").textContent = text;
  clearTimeout(noticed);
  noticed = setTimeout(() => $("notice").replaceChildren(), 15_000);
}
let noticed;
let ticks = 0; // pictures drawn, for whoever measures

function resize() {
  const box = $("space");
  scene.resize(box.clientWidth, box.clientHeight, coarse * Math.min(2, window.devicePixelRatio || 1));
  drawLanes();
  draw(0); // a canvas of another size is empty, and would flash until the next picture
  wake();
}
