// The page: what is shown when, and what keys, pointers and buttons do.

const $ = (id) => document.getElementById(id);
const film = new Film(JSON.parse($("film").textContent));
const many = film.bodies.length > 1;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const FIRST = { azimuth: film.azimuth + 25, elevation: 12 };

const state = {
  frame: 0, share: 0, playing: false, speed: 1, loop: true, // share: of the way to the next frame
  picked: many ? null : 0, // a body, or null for everybody
  azimuth: FIRST.azimuth, elevation: FIRST.elevation, zoom: 1, pan: [0, 0, 0], preset: null,
};

const most = film.solids.length * film.bodies.length * (film.now === null ? 1 : 2) + (film.now === null ? 0 : 150 * film.bodies.length);
const points = Math.max(1, ...film.bodies.map((b) => (b.cloud ? b.cloud.width / 3 : 0))) * film.bodies.length;
const lists = { solids: new Solids(most), shadows: new Solids(most), cloud: new Solids(points) };
let scene, theme, shown = null, follow = null, waiting = false, last = null;

// -- colours ----------------------------------------------------------------------------------------------------------
function readTheme() {
  const style = getComputedStyle(document.documentElement), read = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["left", "right", "line", "soft", "text", "accent", "future", "ground", "sky", "card"];
  theme = Object.fromEntries(names.map((name) => [name, read(name)]));
  theme.name = dark.matches ? "dark" : "light";
  theme.grid = read("grid").split(",").map((v) => Number(v) / 255);
  theme.shadow = Number(read("shadow"));
  theme.haze = rgb(read("haze"));
}

// -- the clock: the video's where there is one ------------------------------------------------------------------------
const video = $("video");
let filmed = film.video !== null, presented = null;

function openVideo() {
  if (!film.video) { video.remove(); return; }
  video.addEventListener("error", () => fail(`This browser cannot play ${film.video.name}, or it is not beside this page. The skeletons are shown without it.`));
  video.addEventListener("loadeddata", () => { filmed = true; $("trouble").hidden = true; if (!video.videoWidth) fail(`${film.video.name} has no pictures that this browser can play. The skeletons are shown without it.`); wake(); });
  if (video.requestVideoFrameCallback) {
    const each = (_, about) => { presented = about.mediaTime; wake(); video.requestVideoFrameCallback(each); };
    video.requestVideoFrameCallback(each);
  }
  const inside = $("video-bytes").textContent;
  if (inside) {
    const text = atob(inside), bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    video.src = URL.createObjectURL(new Blob([bytes]));
  } else video.src = film.video.src;
  $("choose-file").addEventListener("change", (event) => { if (event.target.files[0]) video.src = URL.createObjectURL(event.target.files[0]); });
}

function fail(text) {
  filmed = false;
  video.style.visibility = "hidden";
  $("trouble-text").textContent = text;
  $("trouble").hidden = false;
  last = null;
  wake();
}

function seek(frame, keep = false) {
  state.frame = Math.min(film.frames - 1, Math.max(0, Math.round(frame)));
  state.share = 0;
  presented = null;
  if (!keep) play(false);
  if (filmed) video.currentTime = film.inside(state.frame);
  follow = null;
  wake();
}

function play(on) {
  if (on === state.playing) return;
  if (on && state.frame >= film.frames - 1) seek(0, true);
  state.playing = on;
  last = null;
  if (filmed) {
    video.playbackRate = state.speed;
    if (on) video.play().catch(() => { if (!video.error) play(false); }); else video.pause();
    if (!on) seek(state.frame, true);
  }
  state.share = 0;
  $("play").classList.toggle("playing", on);
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  wake();
}

// Move on by `dt` seconds of the wall's clock.
function advance(dt) {
  const end = film.timeOf(film.frames - 1) + 1 / film.fps;
  let over;
  if (filmed) {
    const time = presented ?? video.currentTime;
    over = video.ended || video.currentTime >= end;
    state.frame = film.frameAt(time);
  } else {
    const from = film.timeOf(state.frame), next = state.frame + 1 < film.frames ? film.timeOf(state.frame + 1) : end;
    const time = from + state.share * (next - from) + dt * state.speed;
    over = time >= end;
    state.frame = film.frameAt(time);
    const begin = film.timeOf(state.frame), after = state.frame + 1 < film.frames ? film.timeOf(state.frame + 1) : end;
    state.share = Math.min(0.999, Math.max(0, (time - begin) / (after - begin)));
  }
  if (!over) return;
  if (!state.loop) { state.frame = film.frames - 1; play(false); return; }
  seek(0, true);
  if (filmed) video.play().catch(() => play(false));
}

// -- where to look ----------------------------------------------------------------------------------------------------
function looked() {
  return state.picked === null ? film.bodies : [film.bodies[state.picked]];
}

// What the view must hold: the bodies at this moment, or at the nearest one at which some are there.
function wanted() {
  let frame = state.frame;
  if (!looked().some((b) => b.isThere(frame))) {
    const near = looked().map((b) => b.nearest(frame)).filter((t) => t >= 0);
    if (!near.length) return { centre: [0, 0, 0.9], across: 0, reach: 1 };
    frame = near.sort((a, b) => Math.abs(a - frame) - Math.abs(b - frame))[0];
  }
  const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  let reach = 0, middle = 0, count = 0;
  for (const body of looked()) {
    const pose = body.pose(frame), root = pose && film.joint(pose, film.root);
    if (!root || Number.isNaN(root[0])) continue;
    for (const axis of [0, 1]) { low[axis] = Math.min(low[axis], root[axis]); high[axis] = Math.max(high[axis], root[axis]); }
    reach = Math.max(reach, body.reach);
    middle += body.middle; count++;
  }
  if (!count) return { centre: [0, 0, 0.9], across: 0, reach: 1 };
  return { centre: [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, middle / count], across: Math.hypot(high[0] - low[0], high[1] - low[1]) / 2, reach };
}

function goal(dt) {
  const now = wanted(), share = state.playing && dt !== null ? 1 - Math.exp(-dt / 0.35) : 1;
  follow = follow === null ? now : { centre: mix(follow.centre, now.centre, share), across: follow.across + share * (now.across - follow.across), reach: follow.reach + share * (now.reach - follow.reach) };
  const box = $("space"), aspect = box.clientWidth / Math.max(1, box.clientHeight);
  if (state.preset === "Camera") return own(aspect);
  const slope = Math.tan((FIELD * Math.PI) / 360), lean = Math.abs(Math.sin((state.elevation * Math.PI) / 180));
  const tall = 1.16 * (follow.reach + follow.across * lean), wide = 1.08 * (follow.across + 0.75 * follow.reach);
  const distance = (Math.max(tall / slope, wide / (slope * aspect)) + 0.6 * follow.across + 0.2) * state.zoom;
  return View.orbit(plus(follow.centre, state.pan), state.azimuth, state.elevation, distance);
}

// The camera that filmed the bodies looked at; their mean, where each has its own.
function filming() {
  const cameras = looked().map((b) => b.camera).filter(Boolean), middle = [0, 0, 0];
  for (const { position } of cameras) position.forEach((v, i) => { middle[i] += v / cameras.length; });
  return cameras.length ? { ...cameras[0], position: middle } : null;
}

// Its view, in which all of its image fits.
function own(aspect) {
  const { position, forward, up, across, down } = filming(), tall = Math.max(down, across / aspect);
  return new View(position, plus(position, forward, 5), up, (2 * Math.atan(tall / 2) * 180) / Math.PI);
}

// Degrees about z from which the bodies are seen from in front.
function front() {
  let ahead = [0, 0, 0];
  for (const body of looked()) {
    const pose = body.pose(body.nearest(state.frame));
    if (!pose) continue;
    let over = [0, 0, 0];
    for (const [, j, side] of film.bones) {
      const p = film.joint(pose, j);
      if (side && !Number.isNaN(p[0])) over = plus(over, p, side === 1 ? 1 : -1);
    }
    ahead = plus(ahead, unit(cross(over, [0, 0, 1])));
  }
  return length(ahead) > 0.05 ? (Math.atan2(ahead[1], ahead[0]) * 180) / Math.PI : film.azimuth;
}

const PRESETS = {
  Front: () => [front(), 6],
  Side: () => [front() + 90, 6],
  Top: () => [film.azimuth, 89.5],
};

function lookFrom(name) {
  state.preset = name;
  state.zoom = 1;
  state.pan = [0, 0, 0];
  if (PRESETS[name]) {
    const [azimuth, elevation] = PRESETS[name]();
    state.azimuth += ((((azimuth - state.azimuth) % 360) + 540) % 360) - 180; // the short way round
    state.elevation = elevation;
  }
  pressed();
  wake();
}

function turn(right, up) {
  loosen();
  state.azimuth -= right;
  state.elevation = Math.max(-8, Math.min(89.5, state.elevation + up));
  wake();
}

function move(right, up) { // in shares of the view's height
  loosen();
  const view = goal(null), axes = view.axes(), span = 2 * length(minus(view.eye, view.target)) * Math.tan((view.field * Math.PI) / 360);
  state.pan = plus(plus(state.pan, axes.right, -right * span), axes.up, up * span);
  wake();
}

function nearer(factor) {
  loosen();
  state.zoom = Math.max(0.15, Math.min(8, state.zoom / factor));
  wake();
}

// From a preset on, by hand; from the camera's own place, the turned view starts as close to it as an orbit can.
function loosen() {
  if (state.preset === "Camera") {
    const { forward } = filming();
    state.azimuth = (Math.atan2(-forward[1], -forward[0]) * 180) / Math.PI;
    state.elevation = Math.max(-8, (Math.asin(-forward[2]) * 180) / Math.PI);
  }
  if (state.preset) { state.preset = null; pressed(); }
}

function reset() {
  Object.assign(state, FIRST, { zoom: 1, pan: [0, 0, 0], preset: null });
  pressed();
  wake();
}

function pressed() {
  for (const button of $("views").children) button.setAttribute("aria-pressed", button.textContent === state.preset);
  for (const button of $("people").children) button.setAttribute("aria-pressed", button.body === state.picked);
}

// -- drawing ----------------------------------------------------------------------------------------------------------
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
    const pose = body.pose(t), root = pose && film.joint(pose, film.root);
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
  const box = $("space"), project = view.projector(box.clientWidth, box.clientHeight), tags = $("tags").children;
  film.bodies.forEach((body, i) => {
    const tag = tags[i], pose = many ? body.pose(state.frame + state.share) : null;
    let top = null;
    if (pose) for (let j = 0; j < film.joints.length; j++) if (pose[3 * j + 2] > (top ? top[2] : -1e9)) top = film.joint(pose, j);
    const at = top && project(plus(film.joint(pose, film.root), [0, 0, 1], top[2] + 0.24 - pose[3 * film.root + 2]));
    tag.hidden = !at || at[2] < 0.1;
    if (at) tag.style.transform = `translate(${at[0].toFixed(1)}px, ${at[1].toFixed(1)}px) translate(-50%, -50%)`;
    tag.style.opacity = state.picked === null || state.picked === i ? 1 : 0.45;
  });
  document.body.dataset.frame = state.frame;
}

// Skeletons over the image.
function drawScreen(canvas = $("overlay"), pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1) {
  if ($("screen").hidden) return;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const fit = Math.min(width / film.size[0], height / film.size[1]);
  pen.setTransform(ratio * fit, 0, 0, ratio * fit, (ratio * (width - film.size[0] * fit)) / 2, (ratio * (height - film.size[1] * fit)) / 2);
  if (!filmed) {
    pen.strokeStyle = "#2a3140"; pen.lineWidth = 1 / fit;
    pen.strokeRect(0, 0, ...film.size);
  }
  pen.lineCap = "round";
  for (const body of film.bodies) {
    const points = body.pixelsAt(state.frame);
    if (!points) continue;
    pen.globalAlpha = state.picked === null || state.picked === body.index ? 1 : 0.3;
    const line = (i, j, colour, wide, dash = []) => {
      pen.strokeStyle = colour; pen.lineWidth = wide; pen.setLineDash(dash);
      pen.beginPath(); pen.moveTo(points[2 * i], points[2 * i + 1]); pen.lineTo(points[2 * j], points[2 * j + 1]); pen.stroke();
    };
    const wide = Math.max(3.2 / fit, Math.max(...film.size) / 260);
    const bones = film.bones.filter(([i, j]) => !Number.isNaN(points[2 * i] + points[2 * j]));
    for (const [i, j] of bones) line(i, j, "rgba(0, 0, 0, .45)", wide + 2.4 / fit);
    for (const [i, j, side] of bones) line(i, j, side === 1 ? "#ff9350" : side === 2 ? "#4aa3f0" : "#f4f4fb", wide);
    for (const [i, j, side] of bones) if (side === 1) { pen.lineCap = "butt"; line(i, j, "#fff1e6", wide, [wide * 0.5, wide * 1.7]); pen.lineCap = "round"; }
    pen.setLineDash([]);
    if (!many) continue;
    let top = -1;
    for (let j = 0; j < film.joints.length; j++) if (points[2 * j + 1] < (top < 0 ? Infinity : points[2 * top + 1])) top = j;
    if (top < 0) continue;
    const r = 9 / fit, x = points[2 * top], y = Math.max(1.2 * r, points[2 * top + 1] - 2.1 * r);
    pen.fillStyle = colourOf(body.index);
    pen.beginPath(); pen.arc(x, y, r, 0, 7); pen.fill();
    pen.fillStyle = "#fff"; pen.font = `600 ${1.25 * r}px system-ui, "DejaVu Sans", sans-serif`; pen.textAlign = "center"; pen.textBaseline = "middle";
    pen.fillText(short(body), x, y + 0.05 * r);
  }
  pen.globalAlpha = 1;
}

const short = (body) => (/^Person \d+$/.test(body.name) ? body.name.slice(7) : body.name[0]);

// The strip: each body small, seen from the film's side.
function drawStrip() {
  const a = (film.azimuth * Math.PI) / 180;
  for (const button of $("people").children) {
    const body = film.bodies[button.body], canvas = button.querySelector("canvas");
    if (!body) continue;
    const there = body.isThere(state.frame), pose = body.pose(body.nearest(state.frame)), ratio = 2;
    button.classList.toggle("away", !there);
    button.querySelector("small").textContent = there ? "here" : body.present.length ? "away" : "never seen";
    if (canvas.width !== 40 * ratio) { canvas.width = 40 * ratio; canvas.height = 50 * ratio; }
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (!pose) continue;
    const root = film.joint(pose, film.root), scale = (23 * ratio) / body.reach;
    const at = (j) => { const d = minus(film.joint(pose, j), root); return [20 * ratio + scale * (d[1] * Math.cos(a) - d[0] * Math.sin(a)), 25 * ratio - scale * d[2]]; };
    pen.lineCap = "round";
    for (const [i, j, side] of film.bones) {
      const [p, q] = [at(i), at(j)];
      if (Number.isNaN(p[0] + q[0])) continue;
      pen.strokeStyle = side === 1 ? "#e5763b" : side === 2 ? "#2f83cf" : colourOf(body.index);
      pen.lineWidth = side ? 2.6 * ratio : 4 * ratio;
      pen.beginPath(); pen.moveTo(...p); pen.lineTo(...q); pen.stroke();
    }
    const head = film.joints.indexOf("head");
    if (head >= 0) { pen.fillStyle = colourOf(body.index); pen.beginPath(); pen.arc(...at(head), 3.6 * ratio, 0, 7); pen.fill(); }
  }
}

function drawLanes() {
  const canvas = $("lanes"), width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d"), x = (frame) => 6 + ((width - 12) * frame) / Math.max(1, film.frames - 1);
  pen.scale(ratio, ratio);
  pen.fillStyle = theme.line;
  pen.beginPath(); pen.roundRect(0, 4, width, height - 8, 6); pen.fill();
  const shownBodies = film.bodies, tall = (height - 12) / shownBodies.length;
  shownBodies.forEach((body, i) => {
    pen.fillStyle = colourOf(body.index);
    for (const [first, end] of body.present) {
      pen.globalAlpha = state.picked === null || state.picked === i ? 0.85 : 0.28;
      pen.beginPath();
      pen.roundRect(x(first) - 2, 6 + i * tall, Math.max(3, x(end - 1) - x(first) + 4), Math.max(1.2, tall - 1), Math.min(3, tall / 3));
      pen.fill();
    }
  });
  pen.globalAlpha = 1;
  if (film.now === null) return;
  const from = x(film.now - 1);
  pen.save();
  pen.beginPath(); pen.rect(from, 4, width - from, height - 8); pen.clip();
  pen.strokeStyle = theme.card; pen.globalAlpha = 0.55; pen.lineWidth = 2.5;
  for (let s = from - height; s < width; s += 9) { pen.beginPath(); pen.moveTo(s, height); pen.lineTo(s + height, 0); pen.stroke(); }
  pen.restore();
  pen.fillStyle = theme.future;
  pen.fillRect(from - 1, 1, 2, height - 2);
}

// "0.5 s ago", "now", "in 0.5 s": when a forecast begins, time counts from there.
function when() {
  const seconds = film.timeOf(state.frame);
  if (film.now === null) return `${seconds.toFixed(2)} s`;
  const from = (state.frame - film.now + 1) / film.fps, words = Math.abs(from).toFixed(Math.abs(from) < 0.1 ? 2 : 1);
  return Math.abs(from) < 1e-6 ? "now" : from < 0 ? `${words} s ago` : `in ${words} s`;
}

function tell() {
  const scrub = $("scrub"), count = `${state.frame + 1} of ${film.frames}`;
  if (Number(scrub.value) !== state.frame) scrub.value = state.frame;
  scrub.setAttribute("aria-valuetext", `frame ${count}, ${when()}`);
  $("clock").firstChild.textContent = when();
  $("clock").lastChild.textContent = count;
  const gone = state.picked !== null && !film.bodies[state.picked].isThere(state.frame) ? film.bodies[state.picked].name : null;
  const badge = $("badge"), nobody = !film.bodies.some((b) => b.isThere(state.frame));
  const text = gone ? `${gone} is not ${film.bodies[state.picked].present.length ? "here now" : "in this film"}` : nobody ? "Nobody is here now" : film.now === null ? "" : ahead() ? `Forecast: ${when()}` : `Seen: ${when()}`;
  if (badge.textContent !== text) badge.textContent = text;
  badge.classList.toggle("future", ahead() && !gone && !nobody);
}

// The body that the charts are about: the one picked, else the one that is there longest.
function subject() {
  if (state.picked !== null) return film.bodies[state.picked];
  const long = (b) => b.present.reduce((sum, [first, end]) => sum + end - first, 0);
  return film.bodies.reduce((best, b) => (long(b) > long(best) ? b : best));
}

let stripped = 0;
function draw(dt) {
  const view = goal(dt), ease = calm.matches || dt === null || shown === null ? 1 : 1 - Math.exp(-dt / 0.09);
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
// Where pictures come too slowly, 3D is drawn coarser.
function keepPace(dt) {
  pace = 0.9 * pace + 0.1 * dt;
  if (pace < 1 / 40 || coarse <= 0.5 || performance.now() - coarsened < 1500) return;
  coarse *= 0.75;
  coarsened = performance.now();
  resize();
}
let pace = 0, coarse = 1, coarsened = 0;
let ticks = 0; // pictures drawn, for whoever measures

function resize() {
  const box = $("space");
  scene.resize(box.clientWidth, box.clientHeight, coarse * Math.min(2, window.devicePixelRatio || 1));
  drawLanes();
  wake();
}

// -- what is saved ----------------------------------------------------------------------------------------------------
function save(blob, suffix) {
  const link = document.createElement("a"), stem = film.title.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-") || "film";
  link.href = URL.createObjectURL(blob);
  link.download = `${stem}-frame-${state.frame + 1}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The image of the video, where the browser lets a page from a disk read it, with its skeletons; beside it the people in 3D.
function still() {
  draw(null);
  const left = $("screen").hidden ? null : $("overlay"), right = $("scene"), sheet = document.createElement("canvas");
  const draws = (withVideo) => {
    sheet.width = (left ? left.width : 0) + right.width;
    sheet.height = Math.max(left ? left.height : 0, right.height);
    const pen = sheet.getContext("2d");
    const back = pen.createLinearGradient(0, 0, 0, sheet.height);
    back.addColorStop(0, theme.sky);
    back.addColorStop(1, theme.ground);
    pen.fillStyle = back;
    pen.fillRect(0, 0, sheet.width, sheet.height);
    if (left) {
      pen.fillStyle = "#05070b";
      pen.fillRect(0, 0, left.width, left.height);
      const fit = Math.min(left.width / film.size[0], left.height / film.size[1]), w = film.size[0] * fit, h = film.size[1] * fit;
      if (withVideo) pen.drawImage(video, (left.width - w) / 2, (left.height - h) / 2, w, h);
      pen.drawImage(left, 0, 0);
    }
    pen.drawImage(right, left ? left.width : 0, 0);
    return sheet.toDataURL("image/png").slice(22); // throws where the video may not be read
  };
  let text;
  try { text = draws(filmed); } catch { text = draws(false); }
  save(new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: "image/png" }), "png");
}

function table() {
  const rows = [["frame", "time_s", "person", "quantity", "name", "x_m", "y_m", "z_m", "value", "unit"]], t = state.frame, time = film.timeOf(t).toFixed(4);
  const number = (v, digits) => (Number.isFinite(v) ? v.toFixed(digits) : "");
  for (const body of film.bodies) {
    const pose = body.pose(t)?.slice();
    if (!pose) continue;
    film.joints.forEach((name, j) => rows.push([t + 1, time, body.name, "position", name, ...film.joint(pose, j).map((v) => number(v, 3)), "", ""]));
    for (const { name, left, right } of film.angles)
      for (const [side, at] of [["left", left], ["right", right]]) rows.push([t + 1, time, body.name, "angle", `${side} ${name.toLowerCase()}`, "", "", "", number(film.angle(pose, at), 1), "degrees"]);
    film.joints.forEach((name, j) => rows.push([t + 1, time, body.name, "speed", name, "", "", "", number(film.speed(body, j, t), 3), "m/s"]));
  }
  const cell = (v) => (/[",\n]/.test(`${v}`) ? `"${`${v}`.replaceAll('"', '""')}"` : v);
  save(new Blob([rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }), "csv");
}

// -- hands ------------------------------------------------------------------------------------------------------------
function pick(index) {
  state.picked = index;
  follow = null;
  pressed();
  drawLanes();
  wake();
}

function pointers(canvas) {
  const held = new Map();
  let far = 0, aside = 0;
  const pinch = () => { const [p, q] = [...held.values()]; return { x: (p.x + q.x) / 2, y: (p.y + q.y) / 2, span: Math.hypot(p.x - q.x, p.y - q.y) }; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    far = held.size > 1 ? Infinity : 0;
    aside = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const was = held.size === 2 ? pinch() : null, at = { x: event.clientX, y: event.clientY }, tall = canvas.clientHeight;
    held.set(event.pointerId, at);
    const dx = at.x - before.x, dy = at.y - before.y;
    far += Math.hypot(dx, dy);
    aside += Math.abs(dx);
    if (was) {
      const is = pinch();
      nearer(is.span / Math.max(1, was.span));
      move((is.x - was.x) / tall, (is.y - was.y) / tall);
    } else if (event.shiftKey || event.buttons & 2) move(dx / tall, dy / tall);
    else if (far > 3) turn(dx * 0.45, event.pointerType === "touch" && aside < 14 ? 0 : dy * 0.35); // up and down scrolls the page
  });
  const drop = (event) => {
    if (event.type === "pointerup" && held.size === 1 && far < 4 && many) choose(event, canvas);
    held.delete(event.pointerId);
  };
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, drop);
  canvas.addEventListener("touchstart", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls until the view has the focus
    event.preventDefault();
    nearer(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * 0.004));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (step && event.shiftKey) move(-0.05 * step[0], 0.05 * step[1]);
    else if (step) turn(-8 * step[0], 6 * step[1]);
    else if (event.key === "+" || event.key === "=") nearer(1.15);
    else if (event.key === "-") nearer(1 / 1.15);
    else if (event.key === "0") reset();
    else return;
    event.preventDefault();
  });
}

// The body under a click or a tap; none of them: everybody again.
function choose(event, canvas) {
  const box = canvas.getBoundingClientRect(), project = shown.projector(box.width, box.height), x = event.clientX - box.left, y = event.clientY - box.top;
  let best = 28, found = null;
  for (const body of film.bodies) {
    const pose = body.pose(state.frame);
    for (let j = 0; pose && j < film.joints.length; j++) {
      const [u, v, depth] = project(film.joint(pose, j)), off = Math.hypot(u - x, v - y);
      if (depth > 0 && off < best) { best = off; found = body.index; }
    }
  }
  if (found !== null || state.picked !== null) pick(found === state.picked ? null : found);
}

function keys(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input[type=file]")) return;
  const onButton = event.target.closest("button, summary, a");
  if (event.code === "Space" && !onButton) play(!state.playing);
  else if (event.key === ",") seek(state.frame - 1);
  else if (event.key === ".") seek(state.frame + 1);
  else return;
  event.preventDefault();
}

// -- the start --------------------------------------------------------------------------------------------------------
function button(text, press, parent) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", press);
  parent.append(made);
  return made;
}

function build() {
  const people = film.bodies.length === 1 ? "1 person" : `${film.bodies.length} people`;
  $("about").textContent = `${people}, ${film.frames} frame${film.frames === 1 ? "" : "s"}, ${film.seconds.toFixed(1)} s`;
  $("scrub").max = film.frames - 1;
  $("clock").append(document.createTextNode(""), document.createElement("small"));
  for (const speed of [0.1, 0.25, 0.5, 1, 2]) $("speed").append(new Option(`${speed}×`, speed, speed === 1, speed === 1));
  for (const name of [...Object.keys(PRESETS), ...(film.bodies.every((b) => b.camera) ? ["Camera"] : [])]) button(name, () => lookFrom(name), $("views"));
  for (const body of film.bodies) {
    const tag = document.createElement("span");
    tag.textContent = short(body) === body.name[0] ? body.name : short(body);
    tag.style.background = colourOf(body.index);
    $("tags").append(tag);
  }
  if (many) {
    const chip = (name, index, small) => {
      const made = button("", () => pick(state.picked === index ? null : index), $("people")), canvas = document.createElement("canvas");
      const [title, note] = [document.createElement("b"), document.createElement("small")];
      canvas.setAttribute("aria-hidden", "true");
      title.textContent = name;
      note.textContent = small;
      made.body = index;
      made.append(canvas, title, note);
      return canvas;
    };
    crowd(chip("Everybody", null, people));
    for (const body of film.bodies) chip(body.name, body.index, "");
  }
  if (!film.bones.some(([, , side]) => side)) $("space").classList.add("no-sides");
  const flat = film.size && (film.video || film.bodies.some((b) => b.pixels));
  $("screen").hidden = !flat;
  $("stage").classList.toggle("both", Boolean(flat));
  $("stage").classList.toggle("bare", !film.video);
  $("line").style.setProperty("--lanes", `${Math.min(52, Math.max(34, 12 + 3.3 * film.bodies.length))}px`);
  if (flat) $("stage").style.setProperty("--shape", Math.min(2.2, Math.max(0.5, film.size[0] / film.size[1])));
  for (const { name, href } of film.files) {
    const link = document.createElement("a");
    link.href = href;
    link.download = name;
    link.textContent = name;
    $("files").append($("files").childNodes.length ? " " : "Beside this page: ", link);
  }
}

// Heads and shoulders of three, for "everybody".
function crowd(canvas) {
  canvas.width = 80; canvas.height = 100;
  const pen = canvas.getContext("2d");
  [[22, 44, 9, 1], [58, 44, 9, 2], [40, 54, 12, 0]].forEach(([x, y, r, i]) => {
    pen.fillStyle = colourOf(i);
    pen.beginPath(); pen.arc(x, y - r, r, 0, 7); pen.fill();
    pen.beginPath(); pen.roundRect(x - 1.7 * r, y + 0.3 * r, 3.4 * r, 2.1 * r, [1.4 * r, 1.4 * r, 0.3 * r, 0.3 * r]); pen.fill();
  });
}

readTheme();
build();
const charts = [
  new Chart($("angles"), film, film.angles.map(({ name, left, right }) => ({ name, left, right })), (b, what, t) => { const pose = b.pose(t); return pose ? film.angle(pose, what) : NaN; }, (v) => `${v.toFixed(0)}°`, seek),
  new Chart($("speeds"), film, film.speeds, (b, what, t) => film.speed(b, what, t), (v) => `${v.toFixed(1)} m/s`, seek),
];
charts.forEach((chart) => { Object.assign(chart, { body: subject(), frame: 0, theme }); if (chart.series.length) chart.choose(0); });
scene = makeScene($("scene"), lists, (plain) => { scene = plain; pointers($("scene")); resize(); });
pointers($("scene"));
openVideo();
pressed();
resize();
new ResizeObserver(resize).observe($("space"));
dark.addEventListener("change", () => { readTheme(); drawLanes(); wake(); });
addEventListener("keydown", keys);
$("play").addEventListener("click", () => play(!state.playing));
$("back").addEventListener("click", () => seek(state.frame - 1));
$("on").addEventListener("click", () => seek(state.frame + 1));
$("scrub").addEventListener("input", (event) => seek(Number(event.target.value)));
$("speed").addEventListener("change", (event) => { state.speed = Number(event.target.value); video.playbackRate = state.speed; });
$("loop").addEventListener("click", () => { state.loop = !state.loop; $("loop").setAttribute("aria-pressed", state.loop); });
$("still").addEventListener("click", still);
$("table").addEventListener("click", table);
document.addEventListener("click", (event) => { if (!event.target.closest("#help")) $("help").open = false; });
