// Reads a JSON list of custom resources from standard input and prints the list of what their schemas object to.
import { readFileSync } from "node:fs";
import * as gateway from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as prometheus from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const models = {
  "gateway.networking.k8s.io/v1": gateway,
  "keda.sh/v1alpha1": keda,
  "monitoring.coreos.com/v1": prometheus,
};

const wrong = [];
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${resource.kind}/${resource.metadata?.name}`;
  const Model = models[resource.apiVersion]?.[resource.kind];
  if (Model === undefined) {
    wrong.push(`${name}: no schema of ${resource.apiVersion}`);
    continue;
  }
  try {
    new Model(resource).validate();
  } catch (error) {
    wrong.push(`${name}: ${error.message}`);
  }
}
process.stdout.write(JSON.stringify(wrong));
