// From poses to solids: a list of tapered limbs that both renderers draw.

const SIDES = { left: [0.898, 0.463, 0.231], right: [0.184, 0.514, 0.812] }; // orange and blue: told apart by everybody
const RINGED = 1;
const PEOPLE = [
  "#5b57d9",
  "#0e8a6d",
  "#b8327f",
  "#8a6a00",
  "#7a3fd0",
  "#08768f",
  "#c23b3b",
  "#4f7d0c",
  "#8a5a3c",
  "#56617a",
  "#c02669",
  "#0b7a70",
];

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
const colourOf = (index) => PEOPLE[index % PEOPLE.length];

class Solids {
  constructor(most) {
    this.a = new Float32Array(4 * most); // one end and its radius
    this.b = new Float32Array(4 * most); // the other
    this.tint = new Float32Array(4 * most); // colour, and how much of it is RINGED
    this.most = most;
    this.count = 0;
  }

  add(from, to, near, far, colour, style = 0) {
    if (this.count >= this.most) return;
    const at = 4 * this.count++;
    this.a.set(from, at);
    this.a[at + 3] = near;
    this.b.set(to, at);
    this.b[at + 3] = far;
    this.tint.set(colour, at);
    this.tint[at + 3] = style;
  }
}

// A body's limbs, and which of them throw shadows. `fade` in [0, 1] takes its colours towards `haze`.
function addBody({ solids, shadows }, film, body, pose, haze, fade) {
  const trunk = rgb(colourOf(body.index)),
    ball = mix(trunk, [0.97, 0.97, 0.98], 0.78);
  const tints = [trunk, SIDES.left, SIDES.right, ball].map((c) => mix(c, haze, fade));
  for (const [i, j, near, far, side, start, end] of film.solids) {
    const from = film.joint(pose, i),
      to = film.joint(pose, j);
    if (Number.isNaN(from[0] + to[0])) continue;
    const rod = [mix(from, to, start), mix(from, to, end), near * body.scale, far * body.scale];
    solids.add(...rod, tints[side], side === 1 ? RINGED * (1 - fade) : 0);
    if (side !== 3 && end - start === 1) shadows.add(...rod, tints[side]); // balls and heads add nothing to see
  }
}

// -- where one looks from ---------------------------------------------------------------------------------------------
const FIELD = 34; // degrees, up and down

class View {
  constructor(eye, target, up, field) {
    Object.assign(this, { eye, target, up, field });
  }

  static orbit(target, azimuth, elevation, distance, field = FIELD) {
    const a = (azimuth * Math.PI) / 180,
      e = (elevation * Math.PI) / 180;
    const towards = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
    // Straight from above the world's up does not tell which way is up in the picture.
    const up = [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)];
    return new View(plus(target, towards, distance), target, up, field);
  }

  towards(other, share) {
    if (share >= 1) return other;
    const blend = (name) => mix(this[name], other[name], share);
    return new View(blend("eye"), blend("target"), unit(blend("up")), this.field + share * (other.field - this.field));
  }

  near(other) {
    const close = 1e-3 * (1 + length(minus(other.eye, other.target)));
    return (
      length(minus(this.eye, other.eye)) < close &&
      length(minus(this.target, other.target)) < close &&
      Math.abs(this.field - other.field) < 0.05
    );
  }

  axes() {
    const back = unit(minus(this.eye, this.target)),
      right = unit(cross(this.up, back));
    return { right, up: cross(back, right), back };
  }

  // A function from metres to [x, y, depth] in pixels; depth is negative behind the eye.
  projector(width, height) {
    const { right, up, back } = this.axes(),
      zoom = height / 2 / Math.tan((this.field * Math.PI) / 360),
      eye = this.eye;
    return (p) => {
      const d = minus(p, eye),
        depth = -dot(d, back),
        scale = zoom / Math.max(depth, 1e-6);
      return [width / 2 + dot(d, right) * scale, height / 2 - dot(d, up) * scale, depth, scale];
    };
  }
}
