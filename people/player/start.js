// The page is built, and begins.

function button(text, press, parent) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", press);
  parent.append(made);
  return made;
}

function build() {
  const shown = film.bodies.filter((body) => !body.pale).length, // what they are compared with is nobody else
    people = shown === 1 ? "1 person" : `${shown} people`;
  document.body.classList.toggle("single", single);
  $("about").append(people);
  if (single) $("table").textContent = "Save the numbers (CSV)";
  else {
    const frames = document.createElement("span");
    frames.textContent = `, ${film.frames} frames`;
    $("about").append(frames, `, ${film.seconds.toFixed(1)} s`);
  }
  for (const [name, words] of meanings()) {
    const item = document.createElement("li");
    item.className = name;
    item.textContent = words;
    $("meaning").append(item);
  }
  $("scrub").max = film.frames - 1;
  $("clock").append(document.createTextNode(""), document.createElement("small"));
  for (const speed of [0.1, 0.25, 0.5, 1, 2])
    $("speed").append(new Option(`${speed}×`, speed, speed === 1, speed === 1));
  for (const name of [...Object.keys(PRESETS), ...(film.bodies.every((b) => b.camera) ? ["Camera"] : [])])
    button(name, () => lookFrom(name), $("views"));
  for (const body of film.bodies) {
    const tag = document.createElement("span");
    tag.textContent = short(body) === body.name[0] ? body.name : short(body);
    tag.style.background = colourOf(body.index);
    $("tags").append(tag);
  }
  if (many) {
    const chip = (name, index, small) => {
      const made = button("", () => pick(state.picked === index ? null : index), $("people")),
        canvas = document.createElement("canvas");
      const [title, note] = [document.createElement("b"), document.createElement("small")];
      canvas.setAttribute("aria-hidden", "true");
      title.textContent = name;
      note.textContent = small;
      made.body = index;
      made.append(canvas, title, note);
      return canvas;
    };
    crowd(chip("Everybody", null, shown === film.bodies.length ? people : "all at once"));
    for (const body of film.bodies) chip(body.name, body.index, "");
  }
  if (!film.bones.some(([, , side]) => side)) $("space").classList.add("no-sides");
  const flat = film.size && (film.video || film.bodies.some((b) => b.pixels));
  $("screen").hidden = !flat;
  $("stage").classList.toggle("both", Boolean(flat));
  $("stage").classList.toggle("bare", !film.video && !picture);
  $("line").style.setProperty("--lanes", `${Math.min(52, Math.max(34, 12 + 3.3 * film.bodies.length))}px`);
  if (flat) $("stage").style.setProperty("--shape", Math.min(2.2, Math.max(0.5, film.size[0] / film.size[1])));
  $("stage").classList.toggle("told", $("meaning").hasChildNodes());
  for (const { name, href } of film.files) {
    const link = document.createElement("a");
    link.href = href;
    link.download = name;
    link.textContent = name;
    $("files").append($("files").childNodes.length ? " " : "Beside this page: ", link);
  }
}

// What is drawn otherwise than people who are seen, and what that means.
function meanings() {
  const found = [];
  if (film.now !== null)
    found.push(
      ["full", "seen"],
      ["ahead", "lighter: forecast"],
      ["pale", "pale: as last seen, at “now”"],
      ["dots", "dots: the way forecast, on the floor"],
    );
  if (film.bodies.some((b) => b.pale)) {
    const names = film.bodies.filter((b) => b.pale).map((b) => b.name);
    found.push(["pale", `pale, ${names.join(", ")}: to compare with`]);
  }
  if (film.bodies.some((b) => b.cloud)) found.push(["cloud", "cloud: other poses that fit the image as well"]);
  return found;
}

// Heads and shoulders of three, for "everybody".
function crowd(canvas) {
  canvas.width = 80;
  canvas.height = 100;
  const pen = canvas.getContext("2d");
  [
    [22, 44, 9, 1],
    [58, 44, 9, 2],
    [40, 54, 12, 0],
  ].forEach(([x, y, r, i]) => {
    pen.fillStyle = colourOf(i);
    pen.beginPath();
    pen.arc(x, y - r, r, 0, 7);
    pen.fill();
    pen.beginPath();
    pen.roundRect(x - 1.7 * r, y + 0.3 * r, 3.4 * r, 2.1 * r, [1.4 * r, 1.4 * r, 0.3 * r, 0.3 * r]);
    pen.fill();
  });
}

readTheme();
build();
const charts = [
  new Chart(
    $("angles"),
    film,
    film.angles.map(({ name, left, right }) => ({ name, left, right })),
    (b, what, t) => {
      const pose = b.pose(t);
      return pose ? film.angle(pose, what) : NaN;
    },
    (v) => `${v.toFixed(0)}°`,
    seek,
  ),
  new Chart(
    $("speeds"),
    film,
    single ? [] : film.speeds,
    (b, what, t) => film.speed(b, what, t),
    (v) => `${v.toFixed(1)} m/s`,
    seek,
  ),
];
charts.forEach((chart) => {
  Object.assign(chart, { body: subject(), frame: 0, theme });
  if (chart.series.length) chart.choose(0);
});
scene = makeScene($("scene"), lists);
$("shaded").hidden = scene instanceof Flat; // and cannot be anything else
pointers($("scene"));
openVideo();
pressed();
resize();
new ResizeObserver(resize).observe($("space"));
dark.addEventListener("change", () => {
  readTheme();
  drawLanes();
  wake();
});
addEventListener("keydown", keys);
addEventListener("keyup", (event) => {
  if (event.code === "Space") event.preventDefault(); // or Firefox presses the button that has the focus
});
$("play").addEventListener("click", () => play(!state.playing));
$("back").addEventListener("click", () => seek(state.frame - 1));
$("on").addEventListener("click", () => seek(state.frame + 1));
$("scrub").addEventListener("input", (event) => seek(Number(event.target.value)));
$("speed").addEventListener("change", (event) => {
  state.speed = Number(event.target.value);
  video.playbackRate = state.speed;
});
$("loop").addEventListener("click", () => {
  state.loop = !state.loop;
  $("loop").setAttribute("aria-pressed", state.loop);
});
$("shaded").addEventListener("click", () => {
  chosen = true;
  shade(scene instanceof Flat);
});
$("still").addEventListener("click", still);
$("table").addEventListener("click", table);
document.addEventListener("click", (event) => {
  if (!event.target.closest("#help")) $("help").open = false;
});
