// What is saved: a picture, and the numbers of this moment.

function save(blob, suffix) {
  const link = document.createElement("a"),
    stem = film.title.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-") || "film";
  link.href = URL.createObjectURL(blob);
  link.download = `${stem}-frame-${state.frame + 1}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The image of the video, where the browser lets a page from a disk read it, with its skeletons; beside it the people in 3D.
function still() {
  draw(null);
  const left = $("screen").hidden ? null : $("overlay"),
    right = $("scene"),
    sheet = document.createElement("canvas");
  const draws = (image) => {
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
      const fit = Math.min(left.width / film.size[0], left.height / film.size[1]),
        w = film.size[0] * fit,
        h = film.size[1] * fit;
      if (image) pen.drawImage(image, (left.width - w) / 2, (left.height - h) / 2, w, h);
      pen.drawImage(left, 0, 0);
    }
    pen.drawImage(right, left ? left.width : 0, 0);
    return sheet.toDataURL("image/png").slice(22); // throws where the video may not be read
  };
  let text;
  $("saved").replaceChildren();
  try {
    text = draws(filmed ? video : picture);
  } catch {
    text = draws(null);
    $("saved").append(
      "Saved without the video: this browser lets no page on a disk read it. Choose the video here and save again, or make the page with --embed.",
    );
    button("Choose the video", () => $("choose-file").click(), $("saved"));
  }
  save(new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: "image/png" }), "png");
}

function table() {
  const rows = [["frame", "time_s", "person", "quantity", "name", "x_m", "y_m", "z_m", "value", "unit"]],
    t = state.frame,
    time = film.timeOf(t).toFixed(4);
  const number = (v, digits) => (Number.isFinite(v) ? v.toFixed(digits) : "");
  for (const body of film.bodies) {
    const pose = body.pose(t)?.slice();
    if (!pose) continue;
    film.joints.forEach((name, j) =>
      rows.push([t + 1, time, body.name, "position", name, ...film.joint(pose, j).map((v) => number(v, 3)), "", ""]),
    );
    for (const { name, left, right } of film.angles)
      for (const [side, at] of [
        ["left", left],
        ["right", right],
      ])
        rows.push([
          t + 1,
          time,
          body.name,
          "angle",
          `${side} ${name.toLowerCase()}`,
          "",
          "",
          "",
          number(film.angle(pose, at), 1),
          "degrees",
        ]);
    film.joints.forEach((name, j) =>
      rows.push([t + 1, time, body.name, "speed", name, "", "", "", number(film.speed(body, j, t), 3), "m/s"]),
    );
  }
  const cell = (v) => (/[",\n]/.test(`${v}`) ? `"${`${v}`.replaceAll('"', '""')}"` : v);
  save(new Blob([rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }), "csv");
}
