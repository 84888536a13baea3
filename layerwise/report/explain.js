
// Zooms and moves each map by its viewBox: the wheel or two fingers, a drag of the mouse, a double click for all.
for (const map of document.querySelectorAll("svg.map")) {
  const fingers = new Map();
  let box = [0, 0, 1000];
  const show = (x, y, size) => {
    size = Math.min(1000, Math.max(30, size));
    const within = (place) => Math.min(1000 - size, Math.max(0, place));
    box = [within(x), within(y), size];
    map.setAttribute("viewBox", `${box[0]} ${box[1]} ${size} ${size}`);
  };
  const at = (event) => {
    const frame = map.getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  };
  const zoom = (factor, [x, y]) => {
    const size = Math.min(1000, Math.max(30, box[2] * factor));
    show(box[0] + x * (box[2] - size), box[1] + y * (box[2] - size), size);
  };
  map.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), at(event));
  }, { passive: false });
  map.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, at(event));
    map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    if (other) {
      const apart = ([x, y]) => Math.hypot(x - other[1][0], y - other[1][1]);
      zoom(apart(before) / Math.max(apart(now), 0.01), other[1]);
    } else {
      show(box[0] - (now[0] - before[0]) * box[2], box[1] - (now[1] - before[1]) * box[2], box[2]);
    }
    fingers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) map.addEventListener(end, (event) => fingers.delete(event.pointerId));
  map.addEventListener("dblclick", () => show(0, 0, 1000));
}
