// The sections that a report may have, and where each stands.

/** The usual order, in which a model writes them whatever a site's order is. */
export const USUAL = ["indication", "technique", "comparison", "findings", "impression"];

/** All sections: those of a report in its own order, the others behind what usually stands before them. */
export function allSections(names) {
  const all = [...names];
  USUAL.forEach((name, number) => {
    if (!all.includes(name)) all.splice(number ? all.indexOf(USUAL[number - 1]) + 1 : 0, 0, name);
  });
  return all;
}

/** The same, in the usual order. */
export function asWritten(sections) {
  return sections.toSorted((one, two) => USUAL.indexOf(one.name) - USUAL.indexOf(two.name));
}
