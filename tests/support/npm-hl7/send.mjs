// Sends the HL7 messages of standard input (JSON list of strings) one after the other over one connection and prints the
// answers as a JSON list. Usage: node send.mjs PORT
import { readFileSync } from 'node:fs';
import { Hl7Message } from '@medplum/core';
import { Hl7Client } from '@medplum/hl7';

const client = new Hl7Client({ host: '127.0.0.1', port: Number(process.argv[2]) });
const answers = [];
for (const message of JSON.parse(readFileSync(0, 'utf-8'))) {
  answers.push((await client.sendAndWait(Hl7Message.parse(message))).toString());
}
console.log(JSON.stringify(answers));
await client.close();
