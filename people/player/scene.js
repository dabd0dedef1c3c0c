// Two renderers of the same solids: WebGL through OGL, and a plain canvas where WebGL is missing.

const LIGHT = unit([0.45, -0.55, 0.9]);

const LIMB_VERTEX = `#version 300 es
in vec3 position; in float end; in vec4 a; in vec4 b; in vec4 tint;
uniform mat4 viewMatrix; uniform mat4 projectionMatrix;
out vec3 normal; out vec3 world; out vec4 paint; out float along;
void main() {
  vec3 axis = b.xyz - a.xyz;
  float span = length(axis);
  vec3 w = span > 1e-5 ? axis / span : vec3(0, 0, 1);
  vec3 u = normalize(abs(w.z) < 0.9 ? cross(w, vec3(0, 0, 1)) : cross(w, vec3(1, 0, 0)));
  normal = u * position.x + cross(w, u) * position.y + w * position.z;
  world = mix(a.xyz, b.xyz, end) + normal * mix(a.w, b.w, end);
  paint = tint;
  along = span * end + position.z * mix(a.w, b.w, end);
  gl_Position = projectionMatrix * viewMatrix * vec4(world, 1);
}`;

const LIMB_FRAGMENT = `#version 300 es
precision highp float;
in vec3 normal; in vec3 world; in vec4 paint; in float along;
uniform vec3 light; uniform vec3 cameraPosition; uniform float alpha;
out vec4 colour;
void main() {
  vec3 n = normalize(normal), eye = normalize(cameraPosition - world), c = paint.rgb;
  float wide = fwidth(along) + 1e-4, ring = abs(fract(along / 0.085) - 0.5) * 0.085;
  c = mix(c, mix(c, vec3(1.0, 0.93, 0.86), 0.85), paint.a * (1.0 - smoothstep(0.010 - wide, 0.010 + wide, ring)));
  float key = max(dot(n, light), 0.0), sky = 0.5 + 0.5 * n.z;
  float shine = pow(max(dot(n, normalize(light + eye)), 0.0), 28.0), rim = pow(1.0 - max(dot(n, eye), 0.0), 3.0);
  c = c * (0.40 + 0.26 * sky + 0.46 * key) + 0.16 * shine + rim * (0.05 + 0.10 * sky);
  colour = vec4(c * alpha, alpha);
}`;

const SHADOW_VERTEX = `#version 300 es
in vec2 position; in vec4 a; in vec4 b;
uniform mat4 viewMatrix; uniform mat4 projectionMatrix;
out vec2 at; out vec4 ends; out vec4 blur;
void main() {
  // Straight below, so that feet which stand meet their shadow, and one who jumps is seen to be above the floor.
  vec2 p = a.xy, q = b.xy, axis = q - p;
  float span = length(axis);
  vec2 w = span > 1e-5 ? axis / span : vec2(1, 0), side = vec2(-w.y, w.x);
  float soft = 0.05 + 0.20 * max(max(a.z, b.z), 0.0), reach = max(a.w, b.w) + 1.6 * soft;
  at = (p + q) * 0.5 + w * position.x * (span * 0.5 + reach) + side * position.y * reach;
  ends = vec4(p, q);
  blur = vec4(a.z, b.z, a.w, b.w);
  gl_Position = projectionMatrix * viewMatrix * vec4(at, 0.002, 1);
}`;

const SHADOW_FRAGMENT = `#version 300 es
precision highp float;
in vec2 at; in vec4 ends; in vec4 blur;
uniform float strength;
out vec4 colour;
void main() {
  vec2 axis = ends.zw - ends.xy;
  float t = clamp(dot(at - ends.xy, axis) / max(dot(axis, axis), 1e-6), 0.0, 1.0);
  float radius = mix(blur.z, blur.w, t), soft = 0.03 + 0.20 * max(mix(blur.x, blur.y, t), 0.0);
  float off = max(length(at - ends.xy - axis * t) - 0.6 * radius, 0.0) / soft;
  float dark = strength * exp(-off * off) * radius / (radius + 1.6 * soft);
  colour = vec4(0.0, 0.0, 0.02 * dark, dark);
}`;

const FLOOR_VERTEX = `#version 300 es
in vec2 position;
uniform mat4 viewMatrix; uniform mat4 projectionMatrix; uniform vec2 centre; uniform float reach;
out vec2 at;
void main() {
  at = centre + position * reach;
  gl_Position = projectionMatrix * viewMatrix * vec4(at, 0, 1);
}`;

const FLOOR_FRAGMENT = `#version 300 es
precision highp float;
in vec2 at;
uniform vec2 centre; uniform float reach; uniform vec3 grid; uniform vec3 cameraPosition;
out vec4 colour;
float lines(vec2 p, float width) {
  vec2 wide = fwidth(p), off = abs(fract(p - 0.5) - 0.5);
  vec2 line = 1.0 - smoothstep(wide * width * 0.5, wide * (width * 0.5 + 1.0), off);
  line *= 1.0 - smoothstep(0.25, 0.6, wide);
  return max(line.x, line.y);
}
void main() {
  float far = length(at - centre) / reach, fade = 1.0 - smoothstep(0.35, 1.0, far);
  float strength = max(0.55 * lines(at, 0.4), 0.16 * lines(at * 2.0, 0.2));
  colour = vec4(grid, 1) * strength * fade;
}`;

function capsule(around, rings) {
  const position = [],
    end = [],
    index = [];
  for (let half = 0; half < 2; half++)
    for (let ring = 0; ring <= rings; ring++) {
      const lift = ((ring / rings - 1 + half) * Math.PI) / 2;
      for (let i = 0; i < around; i++) {
        const a = (2 * Math.PI * i) / around;
        position.push(Math.cos(lift) * Math.cos(a), Math.cos(lift) * Math.sin(a), Math.sin(lift));
        end.push(half);
      }
    }
  for (let row = 0; row < 2 * rings + 1; row++)
    for (let i = 0; i < around; i++) {
      const a = row * around + i,
        b = row * around + ((i + 1) % around);
      index.push(a, b, a + around, b, b + around, a + around);
    }
  return {
    position: { size: 3, data: new Float32Array(position) },
    end: { size: 1, data: new Float32Array(end) },
    index: { data: new Uint16Array(index) },
  };
}

class Scene {
  // Throws where there is no WebGL 2.
  constructor(canvas, { solids, shadows, cloud }) {
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: true, premultipliedAlpha: true, depth: true });
    if (!gl) throw new Error("no WebGL 2");
    canvas.addEventListener("webglcontextlost", () => {
      if (!this.ended) shade(false, "The browser has stopped drawing in 3D: bodies are outlined from now on.");
    });
    const about = gl.getExtension("WEBGL_debug_renderer_info");
    const card = gl.getParameter(about ? about.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
    this.slow = /swiftshader|llvmpipe|software|basic render/i.test(card); // WebGL on the processor
    this.canvas = canvas;
    this.renderer = new OGL.Renderer({ canvas, alpha: true, antialias: true, premultipliedAlpha: true });
    canvas.removeAttribute("style"); // the page, not the renderer, says how large it is
    this.gl = gl;
    this.camera = new OGL.Camera(gl, { near: 0.05, far: 200 });
    this.world = new OGL.Transform();
    this.parts = [this.floor(), this.shadows(shadows), this.limbs(solids, 1), this.limbs(cloud, 0.32)];
    this.parts.forEach((mesh, order) => {
      mesh.setParent(this.world);
      mesh.renderOrder = order;
      mesh.frustumCulled = false;
    });
    this.lists = [null, shadows, solids, cloud];
  }

  floor() {
    const { gl } = this,
      square = { position: { size: 2, data: new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]) } };
    const uniforms = { centre: { value: [0, 0] }, reach: { value: 10 }, grid: { value: [0.5, 0.5, 0.5] } };
    const program = new OGL.Program(gl, {
      vertex: FLOOR_VERTEX,
      fragment: FLOOR_FRAGMENT,
      uniforms,
      transparent: true,
      depthWrite: false,
      cullFace: false,
    });
    return new OGL.Mesh(gl, { geometry: new OGL.Geometry(gl, square), program, mode: gl.TRIANGLE_STRIP });
  }

  shadows(solids) {
    const { gl } = this,
      square = { position: { size: 2, data: new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]) } };
    const geometry = new OGL.Geometry(gl, { ...square, ...this.instances(solids, ["a", "b"]) });
    const uniforms = { strength: { value: 0.3 } };
    const program = new OGL.Program(gl, {
      vertex: SHADOW_VERTEX,
      fragment: SHADOW_FRAGMENT,
      uniforms,
      transparent: true,
      depthWrite: false,
      cullFace: false,
    });
    return new OGL.Mesh(gl, { geometry, program, mode: gl.TRIANGLE_STRIP });
  }

  limbs(solids, alpha) {
    const { gl } = this,
      many = solids.most > 150;
    const shape = alpha < 1 ? capsule(6, 2) : many ? capsule(10, 3) : capsule(16, 4);
    const geometry = new OGL.Geometry(gl, { ...shape, ...this.instances(solids, ["a", "b", "tint"]) });
    const uniforms = { light: { value: LIGHT }, alpha: { value: alpha } };
    const program = new OGL.Program(gl, {
      vertex: LIMB_VERTEX,
      fragment: LIMB_FRAGMENT,
      uniforms,
      transparent: alpha < 1,
      depthWrite: alpha === 1,
    });
    return new OGL.Mesh(gl, { geometry, program });
  }

  instances(solids, names) {
    return Object.fromEntries(
      names.map((name) => [name, { instanced: 1, size: 4, data: solids[name], usage: this.gl.DYNAMIC_DRAW }]),
    );
  }

  render(view, theme, centre, reach) {
    const { canvas, camera, gl } = this,
      [floor, shadows] = this.parts;
    camera.up.set(...view.up);
    camera.position.set(...view.eye);
    camera.lookAt(view.target);
    camera.perspective({ fov: view.field, aspect: canvas.width / canvas.height });
    floor.program.uniforms.centre.value = [centre[0], centre[1]];
    floor.program.uniforms.reach.value = reach;
    floor.program.uniforms.grid.value = theme.grid;
    shadows.program.uniforms.strength.value = theme.shadow;
    this.parts.forEach((mesh, i) => {
      const list = this.lists[i];
      if (!list) return;
      mesh.visible = list.count > 0;
      mesh.geometry.setInstancedCount(list.count);
      for (const name of ["a", "b", "tint"])
        if (mesh.geometry.attributes[name]) mesh.geometry.attributes[name].needsUpdate = true;
    });
    gl.clearColor(0, 0, 0, 0);
    this.renderer.render({ scene: this.world, camera, sort: false, frustumCull: false });
  }

  resize(width, height, ratio) {
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    Object.assign(this.renderer, { width: this.canvas.width, height: this.canvas.height }); // what it sets the viewport to
  }

  // Browsers keep few of these at a time.
  end() {
    this.ended = true;
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

// The fallback: the same list, drawn with lines from the farthest to the nearest.
class Flat {
  constructor(canvas, { solids, shadows, cloud }) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    Object.assign(this, { solids, shadows, cloud });
  }

  render(view, theme, centre, reach) {
    const { pen, canvas, solids, shadows, cloud } = this,
      project = view.projector(canvas.width, canvas.height);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.lineCap = "round";
    this.grid(project, theme, centre, Math.min(reach, 12));
    const rows = [];
    for (let i = 0; i < solids.count; i++) {
      const a = solids.a.subarray(4 * i, 4 * i + 4),
        b = solids.b.subarray(4 * i, 4 * i + 4);
      rows.push({ a, b, p: project(a), q: project(b), tint: solids.tint.subarray(4 * i, 4 * i + 4) });
    }
    pen.strokeStyle = `rgba(0, 0, 5, ${0.18 * theme.shadow})`;
    for (let i = 0; i < shadows.count; i++) {
      const a = shadows.a.subarray(4 * i, 4 * i + 4),
        b = shadows.b.subarray(4 * i, 4 * i + 4),
        p = project([a[0], a[1], 0]),
        q = project([b[0], b[1], 0]);
      if (p[2] > 0.1 && q[2] > 0.1) this.line(p, q, (a[3] + b[3]) * p[3]);
    }
    rows.sort((u, v) => v.p[2] + v.q[2] - u.p[2] - u.q[2]);
    for (const { a, b, p, q, tint } of rows) {
      if (p[2] < 0.1 || q[2] < 0.1) continue;
      const width = (a[3] + b[3]) * ((p[3] + q[3]) / 2),
        colour = [0, 1, 2].map((i) => Math.round(255 * tint[i]));
      pen.strokeStyle = `rgb(${colour.map((v) => Math.round(0.62 * v))})`;
      this.line(p, q, width);
      pen.strokeStyle = `rgb(${colour})`;
      this.line(p, q, 0.78 * width);
      if (tint[3] > 0) {
        pen.strokeStyle = `rgba(255, 232, 214, ${tint[3]})`;
        pen.lineCap = "butt";
        pen.setLineDash([0.022 * p[3], 0.063 * p[3]]);
        this.line(p, q, 0.78 * width);
        pen.setLineDash([]);
        pen.lineCap = "round";
      }
    }
    for (let i = 0; i < cloud.count; i++) {
      const p = project(cloud.a.subarray(4 * i, 4 * i + 3)),
        [r, g, b] = cloud.tint.subarray(4 * i, 4 * i + 3);
      pen.fillStyle = `rgba(${255 * r}, ${255 * g}, ${255 * b}, 0.32)`;
      pen.beginPath();
      pen.arc(p[0], p[1], cloud.a[4 * i + 3] * p[3], 0, 7);
      pen.fill();
    }
  }

  grid(project, theme, centre, reach) {
    const x0 = Math.round(centre[0]),
      y0 = Math.round(centre[1]),
      n = Math.ceil(reach);
    this.pen.strokeStyle = `rgba(${theme.grid.map((v) => Math.round(255 * v))}, 0.4)`;
    for (let i = -n; i <= n; i++)
      for (let j = -n; j < n; j++)
        for (const [a, b] of [
          [
            [x0 + i, y0 + j, 0],
            [x0 + i, y0 + j + 1, 0],
          ],
          [
            [x0 + j, y0 + i, 0],
            [x0 + j + 1, y0 + i, 0],
          ],
        ]) {
          const p = project(a),
            q = project(b);
          if (p[2] > 0.1 && q[2] > 0.1) this.line(p, q, 1);
        }
  }

  line(p, q, width) {
    this.pen.lineWidth = Math.max(1, width);
    this.pen.beginPath();
    this.pen.moveTo(p[0], p[1]);
    this.pen.lineTo(q[0], q[1] + (p[0] === q[0] && p[1] === q[1] ? 0.01 : 0)); // a line of no length has no caps
    this.pen.stroke();
  }

  resize(width, height, ratio) {
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
  }

  end() {}
}

// WebGL where it is wanted and works, else the plain canvas.
function makeScene(canvas, lists, shaded = true) {
  if (shaded)
    try {
      return new Scene(canvas, lists);
    } catch {} // the browser has none
  return new Flat(renewed(canvas), lists);
}

// A canvas in the place of this one: whoever has drawn on a canvas, nobody draws on it otherwise.
function renewed(canvas) {
  const fresh = canvas.cloneNode(),
    focused = document.activeElement === canvas;
  canvas.replaceWith(fresh);
  if (focused) fresh.focus();
  return fresh;
}
