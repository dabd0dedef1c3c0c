// The film: numbers in base64, decoded a chunk at a time when they are first looked at.

const ABSENT = -32768;
const CHUNK = 96; // frames; whatever their width, a chunk begins at a whole group of four base64 characters

class Track {
  constructor(raw) {
    Object.assign(this, raw); // start, frames, width, offset, scale, data
    this.chunks = [];
  }

  // Numbers of frame t into `out`; false where it has none.
  read(t, out) {
    const row = t - this.start;
    if (row < 0 || row >= this.frames) return false;
    const index = Math.floor(row / CHUNK),
      chunk = (this.chunks[index] ??= this.decode(index));
    const from = (row - index * CHUNK) * this.width,
      axes = this.offset.length;
    for (let i = 0; i < this.width; i++) {
      const whole = chunk[from + i];
      out[i] = whole === ABSENT ? NaN : this.offset[i % axes] + this.scale * whole;
    }
    return true;
  }

  decode(index) {
    const size = CHUNK * this.width * 2,
      from = index * size,
      count = Math.min(size, this.frames * this.width * 2 - from);
    const text = atob(this.data.slice((from / 3) * 4, Math.ceil((from + count) / 3) * 4));
    const bytes = new Uint8Array(count);
    for (let i = 0; i < count; i++) bytes[i] = text.charCodeAt(i);
    return new Int16Array(bytes.buffer);
  }
}

class Body {
  constructor(raw, index, joints) {
    Object.assign(this, raw); // name, pale, present, reach, scale
    this.index = index;
    this.joints = joints;
    for (const kind of ["world", "pixels", "cloud"]) this[kind] = raw[kind] && new Track(raw[kind]);
    this.poses = [new Float32Array(joints * 3), new Float32Array(joints * 3)];
    this.points = new Float32Array(joints * 2);
  }

  isThere(t) {
    return this.present.some(([first, end]) => t >= first && t < end);
  }

  // The frame nearest to t in which the body is there; -1 where it never is.
  nearest(t) {
    let best = -1;
    for (const [first, end] of this.present) {
      const near = Math.min(Math.max(t, first), end - 1);
      if (best < 0 || Math.abs(near - t) < Math.abs(best - t)) best = near;
    }
    return best;
  }

  // [J * 3] metres at frame t, between two frames where t is not whole; null where the body is not there. Valid until the next call.
  pose(t) {
    const below = Math.floor(t),
      share = t - below,
      [pose, next] = this.poses;
    if (!this.world || !this.isThere(below) || !this.world.read(below, pose)) return null;
    if (share > 0 && this.isThere(below + 1) && this.world.read(below + 1, next))
      for (let i = 0; i < pose.length; i++) pose[i] += share * (next[i] - pose[i]);
    return pose;
  }

  // How high joint `j` is around frame t: the mean over a second, which does not go up and down with steps; NaN where nobody is.
  level(t, j, fps) {
    const step = Math.max(1, Math.round(fps / 10)),
      steps = Math.round(fps / 2 / step);
    let sum = 0,
      count = 0;
    for (let i = -steps; i <= steps; i++) { // frame t is one of them
      const height = this.pose(t + i * step)?.[3 * j + 2] ?? NaN;
      if (Number.isNaN(height)) continue;
      sum += height;
      count++;
    }
    return sum / count;
  }

  pixelsAt(t) {
    return this.pixels && this.pixels.read(t, this.points) ? this.points : null;
  }
}

class Film {
  constructor(raw) {
    Object.assign(this, raw);
    this.bodies = raw.bodies.map((body, i) => new Body(body, i, raw.joints.length));
  }

  get seconds() {
    return this.times ? this.times.at(-1) - this.times[0] + 1 / this.fps : this.frames / this.fps;
  }

  timeOf(frame) {
    return this.times ? this.times[frame] : frame / this.fps;
  }

  // The frame shown at a time of the video: the last one that does not begin after it.
  frameAt(time) {
    let frame = Math.floor(time * this.fps + 1e-3);
    if (this.times) {
      let low = 0,
        high = this.frames - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.times[middle] <= time + 1e-4) low = middle;
        else high = middle - 1;
      }
      frame = low;
    }
    return Math.min(this.frames - 1, Math.max(0, frame));
  }

  // A time safely inside a frame, to seek to: its middle, or soon after its beginning where frames last unevenly, since browsers guess how long.
  inside(frame) {
    const begin = this.timeOf(frame),
      next = frame + 1 < this.frames ? this.timeOf(frame + 1) : begin + 1 / this.fps;
    return begin + (this.times ? Math.min(0.008, (next - begin) / 4) : (next - begin) / 2);
  }

  joint(pose, j) {
    return [pose[3 * j], pose[3 * j + 1], pose[3 * j + 2]];
  }

  // Degrees between the two bones that meet at the middle joint; NaN where one of the three is missing.
  angle(pose, [a, b, c]) {
    const at = this.joint(pose, b),
      u = minus(this.joint(pose, a), at),
      v = minus(this.joint(pose, c), at);
    return (Math.acos(Math.min(1, Math.max(-1, dot(u, v) / (length(u) * length(v))))) * 180) / Math.PI;
  }

  // Metres per second of a joint at frame t, over a twentieth of a second to both sides.
  speed(body, j, t) {
    const reach = Math.max(1, Math.round(this.fps * 0.05)),
      ends = [];
    for (const at of [Math.max(0, t - reach), Math.min(this.frames - 1, t + reach)]) {
      const pose = body.pose(at) ?? body.pose(t);
      if (!pose) return NaN;
      ends.push([this.joint(pose, j), body.isThere(at) ? at : t]);
    }
    const frames = ends[1][1] - ends[0][1];
    return frames > 0 ? (length(minus(ends[1][0], ends[0][0])) / frames) * this.fps : NaN;
  }
}

const minus = (u, v) => [u[0] - v[0], u[1] - v[1], u[2] - v[2]];
const plus = (u, v, s = 1) => [u[0] + s * v[0], u[1] + s * v[1], u[2] + s * v[2]];
const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
const length = (u) => Math.hypot(u[0], u[1], u[2]);
const unit = (u) => {
  const n = length(u) || 1;
  return [u[0] / n, u[1] / n, u[2] / n];
};
const mix = (u, v, s) => u.map((a, i) => a + s * (v[i] - a));
