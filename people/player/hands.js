// What pointers and keys do.

function pick(index) {
  state.picked = index;
  follow = null;
  pressed();
  drawLanes();
  wake();
}

function pointers(canvas) {
  const held = new Map();
  let far = 0,
    aside = 0;
  const pinch = () => {
    const [p, q] = [...held.values()];
    return { x: (p.x + q.x) / 2, y: (p.y + q.y) / 2, span: Math.hypot(p.x - q.x, p.y - q.y) };
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    far = held.size > 1 ? Infinity : 0;
    aside = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const was = held.size === 2 ? pinch() : null,
      at = { x: event.clientX, y: event.clientY },
      tall = canvas.clientHeight;
    held.set(event.pointerId, at);
    const dx = at.x - before.x,
      dy = at.y - before.y;
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
  canvas.addEventListener(
    "touchstart",
    (event) => {
      if (event.touches.length > 1) event.preventDefault();
    },
    { passive: false },
  );
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls until the view has the focus
      event.preventDefault();
      nearer(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * 0.004));
    },
    { passive: false },
  );
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
  const box = canvas.getBoundingClientRect(),
    project = shown.projector(box.width, box.height),
    x = event.clientX - box.left,
    y = event.clientY - box.top;
  let best = 28,
    found = null;
  for (const body of film.bodies) {
    const pose = body.pose(state.frame);
    for (let j = 0; pose && j < film.joints.length; j++) {
      const [u, v, depth] = project(film.joint(pose, j)),
        off = Math.hypot(u - x, v - y);
      if (depth > 0 && off < best) {
        best = off;
        found = body.index;
      }
    }
  }
  if (found !== null || state.picked !== null) pick(found === state.picked ? null : found);
}

function keys(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (single) return; // there is nowhere to go
  if (event.code === "Space") play(!state.playing); // also on a button that was clicked; Enter presses it
  else if (event.target.closest("select, input[type=file]")) return;
  else if (event.key === ",") seek(state.frame - 1);
  else if (event.key === ".") seek(state.frame + 1);
  else return;
  event.preventDefault();
}
