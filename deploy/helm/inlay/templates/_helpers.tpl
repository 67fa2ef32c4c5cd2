{{/* Names, labels and images. */}}

{{- define "inlay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "inlay.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "inlay.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of a component: (dict "root" $ "component" "api"). Selectors never change; the others may. */}}
{{- define "inlay.selector" -}}
app.kubernetes.io/name: {{ include "inlay.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "inlay.labels" -}}
{{ include "inlay.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image by digest where one is given, else by tag; the worker's tag has its variant: (dict "root" $ "image" ...). */}}
{{- define "inlay.image" -}}
{{- $tag := default .root.Chart.AppVersion .root.Values.image.tag -}}
{{- if .image.variant -}}{{- $tag = printf "%s-%s" $tag .image.variant -}}{{- end -}}
{{- with .root.Values.image.registry -}}{{ trimSuffix "/" . }}/{{- end -}}
{{- .image.repository -}}
{{- if .image.digest -}}@{{ .image.digest }}{{- else -}}:{{ $tag }}{{- end -}}
{{- end -}}

{{- define "inlay.databaseSecret" -}}
{{- if .Values.trial.postgresql.enabled -}}{{ include "inlay.fullname" . }}-trial-postgresql{{- else -}}{{ .Values.database.existingSecret }}{{- end -}}
{{- end -}}

{{- define "inlay.databaseKey" -}}
{{- if .Values.trial.postgresql.enabled -}}url{{- else -}}{{ .Values.database.key }}{{- end -}}
{{- end -}}

{{- define "inlay.redisSecret" -}}
{{- if .Values.trial.redis.enabled -}}{{ include "inlay.fullname" . }}-trial-redis{{- else -}}{{ .Values.redis.existingSecret }}{{- end -}}
{{- end -}}

{{- define "inlay.imagesClaim" -}}
{{- default (printf "%s-images" (include "inlay.fullname" .)) .Values.images.existingClaim -}}
{{- end -}}

{{/* A trial's password: as given, else the one that is there, else a fresh one: (dict "root" $ "secret" name "given" text). */}}
{{- define "inlay.trialPassword" -}}
{{- $there := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- if .given -}}
{{- .given -}}
{{- else if $there -}}
{{- index $there.data "password" | b64dec -}}
{{- else -}}
{{- randAlphaNum 32 -}}
{{- end -}}
{{- end -}}

{{/* Files that the settings may name: value, file, setting. */}}
{{- define "inlay.files" -}}
dicom: {file: dicom.toml, setting: INLAY_DICOM_CONFIG}
hl7Mapping: {file: hl7-mapping.toml, setting: INLAY_HL7_MAPPING}
hl7Targets: {file: hl7-targets.toml, setting: INLAY_HL7_TARGETS}
smartClients: {file: smart-clients.toml, setting: INLAY_SMART_CLIENTS}
adapters: {file: adapters.toml, setting: INLAY_ADAPTERS}
jwks: {file: jwks.json, setting: INLAY_JWKS_FILE}
{{- end -}}
