// What the page knows: the film, what is chosen, the colours of the theme.

const $ = (id) => document.getElementById(id);
const film = new Film(JSON.parse($("film").textContent));
const many = film.bodies.length > 1;
const single = film.frames === 1; // a picture, which has no time
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const FIRST = { azimuth: film.azimuth + 25, elevation: 12 };

const state = {
  frame: 0,
  share: 0, // of the way to the next frame
  playing: false,
  speed: 1,
  loop: true,
  picked: many ? null : 0, // a body, or null for everybody
  azimuth: FIRST.azimuth,
  elevation: FIRST.elevation,
  zoom: 1,
  pan: [0, 0, 0],
  preset: null,
};

const most =
  film.solids.length * film.bodies.length * (film.now === null ? 1 : 2) +
  (film.now === null ? 0 : 150 * film.bodies.length);
const points = Math.max(1, ...film.bodies.map((b) => (b.cloud ? b.cloud.width / 3 : 0))) * film.bodies.length;
const lists = { solids: new Solids(most), shadows: new Solids(most), cloud: new Solids(points) };
let scene,
  theme,
  shown = null,
  follow = null,
  waiting = false,
  last = null;

function readTheme() {
  const style = getComputedStyle(document.documentElement),
    read = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["left", "right", "line", "soft", "text", "accent", "future", "ground", "sky", "card"];
  theme = Object.fromEntries(names.map((name) => [name, read(name)]));
  theme.name = dark.matches ? "dark" : "light";
  theme.grid = read("grid")
    .split(",")
    .map((v) => Number(v) / 255);
  theme.shadow = Number(read("shadow"));
  theme.haze = rgb(read("haze"));
}
