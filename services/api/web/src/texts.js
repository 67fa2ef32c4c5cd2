// Every text that the scripts show, from the one catalogue that the templates use too.
import catalogue from "../../inlay_api/texts/en.json";

const plurals = new Intl.PluralRules("en");

/**
 * The text under the key, with {names} filled in. A key that is not there is a defect, and says so. Where a {count} has
 * a form of its own (CLDR's categories), the text under `key.one` is taken.
 */
export function t(key, values = {}) {
  const text = catalogue[`${key}.${plurals.select(values.count)}`] ?? catalogue[key];
  if (text === undefined) throw new Error(`no text ${key}`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
