// Charts tell their figures under the pointer, and by the arrow keys; sections close on a telephone.
"use strict";

// A mark's title reads "epoch 3: student: 1.25 %". Marks above each other are told together.
function tell(plot) {
  const tip = document.createElement("output");
  tip.className = "tip";
  plot.append(tip);
  let columns = []; // those of the picture that is shown: { x, marks }
  let at = -1;

  function collect() {
    const svg = [...plot.querySelectorAll("svg")].find((svg) => svg.getClientRects().length > 0);
    const byPlace = new Map();
    for (const mark of svg?.querySelectorAll("circle.mark") ?? []) {
      const x = Number(mark.getAttribute("cx"));
      byPlace.set(x, [...(byPlace.get(x) ?? []), mark]);
    }
    columns = [...byPlace].map(([x, marks]) => ({ x, marks })).sort((a, b) => a.x - b.x);
    return svg;
  }

  function show(next) {
    for (const mark of columns[at]?.marks ?? []) mark.classList.remove("on");
    at = next;
    const column = columns[at];
    tip.hidden = !column;
    if (!column) return;
    const said = column.marks.map((mark) => {
      mark.classList.add("on");
      return mark.dataset.title;
    });
    // What all of them begin with stands once.
    const head = said[0].split(": ")[0];
    const together = said.length > 1 && said.every((text) => text.startsWith(`${head}: `));
    tip.textContent = together
      ? [head, ...said.map((text) => text.slice(head.length + 2))].join("\n")
      : said.join("\n");
    const box = column.marks[0].getBoundingClientRect();
    const frame = plot.getBoundingClientRect();
    const left = box.left - frame.left + box.width / 2;
    tip.style.top = `${Math.max(box.top - frame.top, 0)}px`;
    tip.style.left = left > frame.width / 2 ? "auto" : `${left + 14}px`;
    tip.style.right = left > frame.width / 2 ? `${frame.width - left + 14}px` : "auto";
  }

  function point(event) {
    const svg = collect();
    if (!svg) return;
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const distances = columns.map(({ x, marks }) => {
      const heights = marks.map((mark) => Math.abs(Number(mark.getAttribute("cy")) - place.y));
      // Columns first: of marks that stand alone, as dots in rows do, the nearest.
      return Math.hypot(x - place.x, marks.length > 1 ? 0 : Math.min(...heights));
    });
    show(distances.indexOf(Math.min(...distances)));
  }

  for (const mark of plot.querySelectorAll("circle.mark")) {
    mark.dataset.title = mark.querySelector("title").textContent;
    mark.querySelector("title").remove(); // the browser's own would lie over ours
  }
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", () => show(-1));
  plot.addEventListener("blur", () => show(-1));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!step) return;
    event.preventDefault();
    if (at < 0) collect();
    show(Math.min(Math.max(at + step, 0), columns.length - 1));
  });
}

document.querySelectorAll(".plot").forEach(tell);
if (matchMedia("(max-width: 40rem)").matches) {
  document.querySelectorAll("details.part:not(.first)").forEach((part) => (part.open = false));
}
addEventListener("beforeprint", () => {
  document.querySelectorAll("details.part").forEach((part) => (part.open = true));
});
