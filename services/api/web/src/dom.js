// Elements in one expression. Text is always text: nothing here parses HTML.

export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A text that may be of any direction. */
export function bdi(text, attributes = {}) {
  return h("bdi", attributes, text);
}

export function time(moment, text) {
  return h("time", { datetime: moment, title: moment }, text);
}

/** A sign with the words that it stands for. */
export function sign(shown, words) {
  return [h("span", { "aria-hidden": "true" }, shown), h("span", { class: "hidden-text" }, words)];
}

/** A button with its key shown and announced. */
export function button(label, key, onclick, attributes = {}) {
  const shown = key ? h("kbd", { "aria-hidden": "true" }, key) : null;
  return h("button", { type: "button", "aria-keyshortcuts": key || null, onclick, ...attributes }, label, shown);
}
