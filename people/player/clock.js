// The clock: the video's own where it plays, the wall's where there is none.

const video = $("video");
const picture = film.picture && new Image();
let filmed = film.video !== null,
  presented = null;

function openVideo() {
  if (!film.video) {
    if (!picture) return video.remove();
    picture.src = film.picture;
    picture.alt = "The picture";
    $("overlay").setAttribute("aria-label", "Skeletons over the picture");
    return video.replaceWith(picture);
  }
  video.addEventListener("error", () =>
    fail(
      `This browser cannot play ${film.video.name}, or it is not beside this page. The skeletons are shown without it.`,
    ),
  );
  video.addEventListener("loadeddata", () => {
    filmed = true;
    video.style.visibility = "";
    $("trouble").hidden = true;
    if (!video.videoWidth)
      fail(`${film.video.name} has no pictures that this browser can play. The skeletons are shown without it.`);
    wake();
  });
  if (video.requestVideoFrameCallback) {
    const each = (_, about) => {
      presented = about.mediaTime;
      wake();
      video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
  }
  const inside = $("video-bytes").textContent;
  if (inside) {
    const text = atob(inside),
      bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    video.src = URL.createObjectURL(new Blob([bytes]));
  } else video.src = film.video.src;
  $("choose-file").addEventListener("change", (event) => {
    if (!event.target.files[0]) return;
    play(false);
    video.addEventListener("loadeddata", () => seek(state.frame), { once: true });
    video.src = URL.createObjectURL(event.target.files[0]);
    $("saved").replaceChildren();
  });
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
    if (on)
      video.play().catch(() => {
        if (!video.error) play(false);
      });
    else video.pause();
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
    const from = film.timeOf(state.frame),
      next = state.frame + 1 < film.frames ? film.timeOf(state.frame + 1) : end;
    const time = from + state.share * (next - from) + dt * state.speed;
    over = time >= end;
    state.frame = film.frameAt(time);
    const begin = film.timeOf(state.frame),
      after = state.frame + 1 < film.frames ? film.timeOf(state.frame + 1) : end;
    state.share = Math.min(0.999, Math.max(0, (time - begin) / (after - begin)));
  }
  if (!over) return;
  if (!state.loop) {
    state.frame = film.frames - 1;
    play(false);
    return;
  }
  seek(0, true);
  if (filmed) video.play().catch(() => play(false));
}
