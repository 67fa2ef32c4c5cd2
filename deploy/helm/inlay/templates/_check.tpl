{{/* What the schema cannot say in words that help: values that need each other. */}}
{{- define "inlay.check" -}}
{{- $v := .Values -}}
{{- if and (not $v.database.existingSecret) (not $v.trial.postgresql.enabled) -}}
{{- fail "database.existingSecret: name the Secret that holds the URL of your PostgreSQL (or, to try Inlay out, set trial.postgresql.enabled=true)" -}}
{{- end -}}
{{- if and $v.database.existingSecret $v.trial.postgresql.enabled -}}
{{- fail "database.existingSecret and trial.postgresql.enabled exclude each other: choose one database" -}}
{{- end -}}
{{- if and (not $v.redis.existingSecret) (not $v.trial.redis.enabled) -}}
{{- fail "redis.existingSecret: name the Secret that holds the URLs of your Redis (or, to try Inlay out, set trial.redis.enabled=true)" -}}
{{- end -}}
{{- if and $v.redis.existingSecret $v.trial.redis.enabled -}}
{{- fail "redis.existingSecret and trial.redis.enabled exclude each other: choose one broker" -}}
{{- end -}}
{{- if and (not $v.settings.jwks_url) (not $v.files.jwks) -}}
{{- fail "settings.jwks_url: give the jwks_uri of your identity provider, or its public keys as files.jwks; in a cluster nobody is let in without a token" -}}
{{- end -}}
{{- if and $v.settings.jwks_url $v.files.jwks -}}
{{- fail "settings.jwks_url and files.jwks exclude each other: choose where the provider's keys come from" -}}
{{- end -}}
{{- if and $v.files.smartClients (not $v.smartKey.existingSecret) -}}
{{- fail "smartKey.existingSecret: files.smartClients needs the key that signs their tokens, the same for every replica" -}}
{{- end -}}
{{- if and $v.settings.subscription_origins (not $v.subscription.existingSecret) -}}
{{- fail "subscription.existingSecret: settings.subscription_origins needs the key that signs notifications" -}}
{{- end -}}
{{- if and $v.settings.fhir_client_id (not $v.fhirClientKey.existingSecret) -}}
{{- fail "fhirClientKey.existingSecret: settings.fhir_client_id needs the private key of that client" -}}
{{- end -}}
{{- if and $v.listener.tls.clients (not $v.listener.tls.existingSecret) -}}
{{- fail "listener.tls.existingSecret: listener.tls.clients needs a certificate of our own" -}}
{{- end -}}
{{- if and $v.worker.model.fetch.enabled (not $v.worker.model.existingClaim) -}}
{{- fail "worker.model.existingClaim: worker.model.fetch needs a volume to fetch the checkpoint into" -}}
{{- end -}}
{{- if and $v.worker.model.path (not $v.worker.model.existingClaim) -}}
{{- fail "worker.model.existingClaim: worker.model.path is a folder of that volume" -}}
{{- end -}}
{{- if and $v.worker.model.existingClaim (not $v.worker.model.path) -}}
{{- fail "worker.model.path: name the checkpoint's folder on the volume of worker.model.existingClaim" -}}
{{- end -}}
{{- if and $v.worker.model.fetch.enabled (or (not $v.worker.model.fetch.hubId) (not $v.worker.model.fetch.revision)) -}}
{{- fail "worker.model.fetch: hubId and revision say which checkpoint, by commit" -}}
{{- end -}}
{{- if gt (int $v.worker.autoscaling.minReplicas) (int $v.worker.autoscaling.maxReplicas) -}}
{{- fail "worker.autoscaling.minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if gt (int $v.api.autoscaling.minReplicas) (int $v.api.autoscaling.maxReplicas) -}}
{{- fail "api.autoscaling.minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if and $v.traces.enabled (not $v.traces.endpoint) -}}
{{- fail "traces.endpoint: where is the collector? (http://collector.monitoring:4318)" -}}
{{- end -}}
{{- if and $v.api.ingress.enabled (not $v.api.ingress.host) -}}
{{- fail "api.ingress.host: under which name is Inlay reached?" -}}
{{- end -}}
{{- if and $v.api.ingress.enabled (not $v.api.ingress.tls.existingSecret) -}}
{{- fail "api.ingress.tls.existingSecret: reports travel over TLS only; name the Secret with the certificate" -}}
{{- end -}}
{{- if and $v.api.gateway.enabled (not $v.api.gateway.parentRefs) -}}
{{- fail "api.gateway.parentRefs: which Gateway, and which of its listeners (with TLS)?" -}}
{{- end -}}
{{- end -}}
