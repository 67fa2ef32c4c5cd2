// The exchange of tests/peers with fhir-kit-client: a task as JSON on standard input, what was seen as JSON on standard
// output; see ../pip-peers/fhirpy_client.py.
import { readFileSync } from 'node:fs';
import { Client } from 'fhir-kit-client';

const task = JSON.parse(readFileSync(0, 'utf-8'));
const { report, other } = task;
const resourceType = 'DiagnosticReport';
const client = (role, customHeaders = {}) =>
  new Client({ baseUrl: task.url, bearerToken: task.tokens[role], customHeaders });
const issue = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error.response.data.resourceType === 'OperationOutcome' ? error.response.data.issue[0].code : 'no outcome';
  }
  return 'no error';
};

const ehr = client('ehr');
const seen = { version: (await ehr.capabilityStatement()).fhirVersion };
let page = await ehr.search({ resourceType, searchParams: { category: 'LP29684-5', _count: '2' } });
seen.total = page.total;
seen.paged = [];
while (page) {
  seen.paged.push(...page.entry.map((entry) => entry.resource.id));
  page = await ehr.nextPage({ bundle: page });
}
seen.paged.sort();
const one = await ehr.read({ resourceType, id: report });
seen.read = [one.id, one.status];
const options = { headers: { 'If-None-Match': Client.httpFor(one).response.headers.get('etag') } };
try {
  await ehr.read({ resourceType, id: report, options });
} catch (error) {
  seen.again = error.response.status === 304 ? report : error.response.status;
}
seen.vread = (await ehr.vread({ resourceType, id: report, version: '1' })).status;
const history = await ehr.history({ resourceType, id: report });
seen.history = history.entry.map((entry) => entry.resource.meta.versionId);
const ris = client('ris', { 'If-None-Exist': `identifier=${task.condition}` });
const made = [];
for (let n = 0; n < 2; n += 1) made.push(await ris.create({ resourceType: 'ServiceRequest', body: task.order }));
const codes = made.map((each) => Client.httpFor(each).response.status);
seen.created = codes[0] === 201 && codes[1] === 200 && made[0].id === made[1].id;
const reader = client('radiologist', { 'If-Match': 'W/"3"' });
const job = await reader.operation({ name: 'infill', resourceType, id: other, input: task.infill });
seen.infill = [job.resourceType, job.status];
const sign = () => reader.operation({ name: 'sign', resourceType, id: report, input: { resourceType: 'Parameters' } });
const signed = await sign();
seen.signed = [signed.status, signed.meta.versionId];
seen.errors = {
  stale: await issue(sign()),
  unknown: await issue(ehr.read({ resourceType, id: 'nothing' })),
  unreadable: await issue(ehr.search({ resourceType, searchParams: { date: 'last-week' } })),
  stranger: await issue(new Client({ baseUrl: task.url }).search({ resourceType, searchParams: {} })),
};
console.log(JSON.stringify(seen));
