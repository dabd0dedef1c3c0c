// Where the people are looked at from, and how the view goes along with them.

function looked() {
  return state.picked === null ? film.bodies : [film.bodies[state.picked]];
}

// What the view must hold: the bodies at this moment, or at the nearest one at which some are there.
function wanted() {
  let frame = state.frame;
  if (!looked().some((b) => b.isThere(frame))) {
    const near = looked()
      .map((b) => b.nearest(frame))
      .filter((t) => t >= 0);
    if (!near.length) return EMPTY;
    frame = near.sort((a, b) => Math.abs(a - frame) - Math.abs(b - frame))[0];
  }
  const roots = [];
  let reach = 0;
  for (const body of looked()) {
    const pose = body.pose(frame),
      root = pose && film.joint(pose, film.root);
    if (!root || Number.isNaN(root[0])) continue;
    // One who jumps is looked at calmly, as long as they are wholly in view.
    const level = body.level(frame, film.root, film.fps),
      off = 0.12 * body.reach;
    root[2] = Math.min(root[2] + off, Math.max(root[2] - off, level));
    roots.push(root);
    reach = Math.max(reach, body.reach);
  }
  if (!roots.length) return EMPTY;
  const centre = [0, 1, 2].map((axis) => {
    const places = roots.map((root) => root[axis]);
    return (Math.min(...places) + Math.max(...places)) / 2;
  });
  const across = Math.max(...roots.map((root) => Math.hypot(root[0] - centre[0], root[1] - centre[1])));
  const rise = Math.max(...roots.map((root) => Math.abs(root[2] - centre[2])));
  return { centre, across, rise, reach };
}
const EMPTY = { centre: [0, 0, 0.9], across: 0, rise: 0, reach: 1 };

function goal(dt) {
  const now = wanted(),
    share = state.playing && dt !== null ? 1 - Math.exp(-dt / 0.35) : 1;
  follow =
    follow === null
      ? now
      : {
          centre: mix(follow.centre, now.centre, share),
          across: follow.across + share * (now.across - follow.across),
          rise: follow.rise + share * (now.rise - follow.rise),
          reach: follow.reach + share * (now.reach - follow.reach),
        };
  const box = $("space"),
    aspect = box.clientWidth / Math.max(1, box.clientHeight);
  if (state.preset === "Camera") return own(aspect);
  const slope = Math.tan((FIELD * Math.PI) / 360),
    angle = (state.elevation * Math.PI) / 180,
    lean = Math.abs(Math.sin(angle));
  const [x, y, z] = minus(now.centre, follow.centre); // of somebody who is faster than the view
  const behind = Math.max(0, Math.hypot(x, y) - 0.5) + Math.max(0, Math.abs(z) - 0.1);
  const covered = under($("views"), box); // of the height, by buttons as wide as the view
  const tall = (1.16 * (follow.reach + follow.across * lean + follow.rise * Math.cos(angle)) + behind) / (1 - covered),
    wide = 1.08 * (follow.across + 0.75 * follow.reach) + behind;
  const near = 0.6 * follow.across + follow.rise * lean + 0.2; // how far somebody stands in front of the middle
  const distance = (Math.max(tall / slope, wide / (slope * aspect)) + near) * state.zoom;
  const view = View.orbit(plus(follow.centre, state.pan), state.azimuth, state.elevation, distance),
    raised = covered * distance * slope;
  return new View(plus(view.eye, view.up, raised), plus(view.target, view.up, raised), view.up, view.field);
}

// The share of the box's height down to the foot of what lies across its top, and one tag above another below it; 0
// where that leaves the middle free.
function under(buttons, box) {
  if (buttons.offsetWidth < 0.6 * box.clientWidth) return 0;
  return (buttons.offsetTop + buttons.offsetHeight + (many ? 26 : 0)) / box.clientHeight;
}

// The camera that filmed the bodies looked at; their mean, where each has its own.
function filming() {
  const cameras = looked()
      .map((b) => b.camera)
      .filter(Boolean),
    middle = [0, 0, 0];
  for (const { position } of cameras)
    position.forEach((v, i) => {
      middle[i] += v / cameras.length;
    });
  return cameras.length ? { ...cameras[0], position: middle } : null;
}

// Its view, in which all of its image fits.
function own(aspect) {
  const { position, forward, up, across, down } = filming(),
    tall = Math.max(down, across / aspect);
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

function move(right, up) {
  // in shares of the view's height
  loosen();
  const view = goal(null),
    axes = view.axes(),
    span = 2 * length(minus(view.eye, view.target)) * Math.tan((view.field * Math.PI) / 360);
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
  if (state.preset) {
    state.preset = null;
    pressed();
  }
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
