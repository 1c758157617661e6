// Small helpers for building the page. Text always goes in as text nodes: names from models are never markup.

/** Return the element with this id; a missing one is a mistake in the page itself. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** Make an element. Attributes: `class`, `text`, `on` ({event: function}), `data` ({name: value}), the rest as they are. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "on") for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    else if (name === "data") Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Set the text of an element only where it changes, so that screen readers are not told the same twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show or hide an element. */
export function setShown(element, shown) {
  element.hidden = !shown;
}

/** A key cap. */
export function cap(key) {
  return el("kbd", { text: key });
}

export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** Round to so many decimals without a trailing minus zero. */
export function fixed(value, decimals = 2) {
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? (0).toFixed(decimals) : text.replace("-", "−");
}

export function percent(value) {
  return `${Math.round(100 * value)} %`;
}

/** Whether keys belong to the element that has the focus: text fields, not sliders or buttons. */
export function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.tagName === "TEXTAREA" || target.tagName === "SELECT") return true;
  return target.tagName === "INPUT" && !["range", "checkbox", "radio", "button"].includes(target.type);
}
