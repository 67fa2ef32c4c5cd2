// Every text that the scripts show, from the one catalogue that the templates use too.
import catalogue from "../../inlay_api/texts/en.json";

/** The text under the key, with {names} filled in. A key that is not there is a defect, and says so. */
export function t(key, values = {}) {
  const text = catalogue[key];
  if (text === undefined) throw new Error(`no text ${key}`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
