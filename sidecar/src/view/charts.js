// The last hour as four small charts, drawn from `/history`.

import { byId, count, html, svg, write } from "./dom.js";

const HEIGHT = 84;
const MARGIN = { top: 6, right: 4, bottom: 16, left: 34 };
const HOUR_S = 3600;
const MINUTES = 60;

const CHARTS = [
  { id: "active", title: "Active sessions", shape: "line" },
  { id: "refreshes", title: "Refreshes", shape: "bars" },
  { id: "rejections", title: "Rejections (422)", shape: "bars" },
  { id: "expiries", title: "Expiries", shape: "bars" },
];

/** Draws all charts into `container`, from what `/history` says. */
export function drawCharts(container, history) {
  // All of them first: how wide one is depends on the others.
  for (const chart of CHARTS) if (!byId(idOf(chart))) container.append(figure(chart));
  for (const chart of CHARTS) {
    const values = chart.shape === "line" ? levels(history.samples, chart.id) : perMinute(history.samples, chart.id);
    fill(byId(idOf(chart)), chart, values);
  }
}

/** The gauge itself: `{ ago_s, value }`. */
const levels = (samples, id) => samples.map((sample) => ({ ago_s: sample.ago_s, value: sample[id] }));

/** Counters only grow, so what happened in a minute is the difference of its samples; minutes nobody saw are left out. */
function perMinute(samples, id) {
  const sums = new Map();
  for (let index = 1; index < samples.length; index += 1) {
    const minute = Math.min(MINUTES - 1, Math.floor(samples[index].ago_s / 60));
    const grown = Math.max(0, samples[index][id] - samples[index - 1][id]);
    sums.set(minute, (sums.get(minute) ?? 0) + grown);
  }
  return [...sums].map(([minute, value]) => ({ ago_s: minute * 60, value })).sort((a, b) => b.ago_s - a.ago_s);
}

const idOf = (chart) => `chart-${chart.id}`;

function figure(chart) {
  const caption = html("figcaption", {}, html("span", {}, chart.title), html("strong", { class: "value" }));
  return html("figure", { id: idOf(chart), class: `chart ${chart.id}` }, caption, html("div", { class: "plot" }));
}

function fill(figure, chart, values) {
  const [head, plot] = figure.children;
  const { short, long } = summary(chart, values);
  write(head.querySelector(".value"), short);
  plot.replaceChildren(drawing(chart, values, plot.clientWidth, `${chart.title} over the last hour: ${long}`));
}

function summary(chart, values) {
  const most = Math.max(0, ...values.map(({ value }) => value));
  if (chart.shape === "line") {
    const now = values.at(-1)?.value ?? 0;
    return { short: count(now), long: `${now} now, at most ${most}` };
  }
  const sum = values.reduce((total, { value }) => total + value, 0);
  return { short: count(sum), long: `${sum}, at most ${most} in a minute` };
}

function drawing(chart, values, width, label) {
  const top = ceiling(Math.max(1, ...values.map(({ value }) => value)));
  const plane = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: HEIGHT - MARGIN.bottom };
  const x = (ago_s) => plane.right - (Math.min(ago_s, HOUR_S) / HOUR_S) * (plane.right - plane.left);
  const y = (value) => plane.bottom - (value / top) * (plane.bottom - plane.top);
  const shapes = chart.shape === "line" ? line(values, x, y, plane) : bars(values, x, y);
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": label },
    ...frame(plane, x, y, top),
    ...shapes,
  );
}

/** The next 1, 2 or 5 with zeros: a scale whose ends people can read. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** Room on the left is for four digits. */
const short = (value) => (value < 10000 ? String(value) : `${value / 1000}k`);

function frame(plane, x, y, top) {
  const rule = (value) => svg("line", { class: "rule", x1: plane.left, x2: plane.right, y1: y(value), y2: y(value) });
  const mark = (value) => svg("text", { x: plane.left - 5, y: y(value) + 3.5, "text-anchor": "end" }, short(value));
  const time = (ago_s, anchor, text) => svg("text", { x: x(ago_s), y: HEIGHT - 3, "text-anchor": anchor }, text);
  return [
    rule(0), rule(top), mark(0), mark(top),
    time(HOUR_S, "start", "1 h ago"), time(HOUR_S / 2, "middle", "30 min"), time(0, "end", "now"),
  ];
}

function line(values, x, y, plane) {
  const points = values.map(({ ago_s, value }) => `${x(ago_s).toFixed(1)},${y(value).toFixed(1)}`);
  if (points.length === 0) return [];
  const [first, last] = [x(values[0].ago_s), x(values.at(-1).ago_s)];
  const area = `M${first},${plane.bottom} L${points.join(" ")} L${last},${plane.bottom} Z`;
  const now = values.at(-1);
  return [
    svg("path", { class: "area", d: area }),
    svg("polyline", { class: "line", points: points.join(" ") }),
    svg("circle", { class: "dot", cx: x(now.ago_s), cy: y(now.value), r: 2.5 }),
  ];
}

function bars(values, x, y) {
  const width = Math.max(1, x(0) - x(60) - 1);
  return values
    .filter(({ value }) => value > 0)
    .map(({ ago_s, value }) => {
      const when = ago_s === 0 ? "in the last minute" : `${ago_s / 60} min ago`;
      const place = { x: x(ago_s + 60), y: y(value), width, height: y(0) - y(value) };
      return svg("rect", { class: "bar", ...place }, svg("title", {}, `${value} ${when}`));
    });
}
