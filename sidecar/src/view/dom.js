// Making and changing elements, and how numbers read. Text is always text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** An HTML element with attributes and children; strings become text. */
export const html = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

/** An SVG element. */
export const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

/** Sets the text of a node, touching it only when it differs, so that selections and screen readers are left in peace. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Makes the children of `element` like `fresh`, keeping elements that can stay: focus, selections and places scrolled to
 * survive. Listeners of what stays are the old ones.
 */
export function morph(element, fresh) {
  [...fresh].forEach((node, index) => {
    const old = element.childNodes[index];
    if (!old) element.append(node);
    else if (old.nodeName !== node.nodeName || old.id !== node.id) old.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) write(old, node.data);
    else {
      morphAttributes(old, node);
      morph(old, [...node.childNodes]);
    }
  });
  while (element.childNodes.length > fresh.length) element.lastChild.remove();
}

function morphAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

const two = (number) => String(number).padStart(2, "0");

/** Seconds as a clock: 0:07, 12:30, 1:00:00. */
export function clock(seconds) {
  const whole = Math.round(Math.abs(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const text = hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  return seconds < -0.5 ? `−${text}` : text;
}

/** Seconds in words, to two units: 45 s, 2 min, 1 min 30 s, 1 h 5 min. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

/** A count with thin gaps between thousands. */
export const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
