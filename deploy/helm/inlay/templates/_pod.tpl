{{/* What every pod of Inlay shares: it writes to its home and /tmp, reads its settings, and its secrets as files. */}}

{{- define "inlay.podMeta" -}}
labels:
  {{- include "inlay.labels" . | nindent 2 }}
  inlay/metrics: "true"
annotations:
  {{- /* A pod is replaced when what it was configured with has changed. */}}
  checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "inlay.podSpec" -}}
serviceAccountName: {{ include "inlay.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.affinity }}
affinity:
  {{- toYaml .values.affinity | nindent 2 }}
{{- else }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "inlay.selector" . | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "inlay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The site's own Secrets that a component reads, by the folder that they are mounted at, and which setting names the file. */}}
{{- define "inlay.secrets" -}}
{{- $v := .root.Values -}}
{{- $all := list
  (dict "name" "files" "from" $v.secretFiles)
  (dict "name" "subscription" "from" $v.subscription "setting" "INLAY_SUBSCRIPTION_SECRET_FILE")
  (dict "name" "smart" "from" $v.smartKey "setting" "INLAY_SMART_KEY_FILE")
  (dict "name" "fhir-client" "from" $v.fhirClientKey "setting" "INLAY_FHIR_CLIENT_KEY")
  (dict "name" "traces" "from" (ternary $v.traces dict $v.traces.enabled) "setting" "INLAY_TRACES_HEADERS_FILE")
  (dict "name" "oidc" "from" $v.oidcClientSecret "setting" "INLAY_OIDC_CLIENT_SECRET_FILE" "only" "api")
  (dict "name" "audit" "from" $v.auditKey "setting" "INLAY_AUDIT_KEY_FILE" "only" "relay")
-}}
{{- range $all }}
{{- if and .from.existingSecret (eq (default $.component .only) $.component) }}
{{ .name }}:
  secret: {{ .from.existingSecret }}
  key: {{ .from.key | quote }}
  setting: {{ .setting | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "inlay.env" -}}
{{- $root := .root -}}
- name: INLAY_HOME
  value: /var/lib/inlay
- name: INLAY_HTTP_HOST
  value: 0.0.0.0
- name: INLAY_AUTH
  value: jwt
- name: INLAY_IMAGES_FOLDER
  value: /var/lib/inlay-images
- name: INLAY_DATABASE_URL_FILE
  value: /run/secrets/inlay/database/{{ include "inlay.databaseKey" $root }}
- name: INLAY_BROKER_URL_FILE
  value: /run/secrets/inlay/redis/{{ $root.Values.redis.brokerKey }}
- name: INLAY_REDIS_URL_FILE
  value: /run/secrets/inlay/redis/{{ $root.Values.redis.progressKey }}
{{- range $name, $secret := include "inlay.secrets" . | fromYaml }}
{{- if $secret.setting }}
- name: {{ $secret.setting }}
  value: /run/secrets/inlay/{{ $name }}/{{ $secret.key }}
{{- end }}
{{- end }}
{{- with $root.Values.traces }}
{{- if .enabled }}
- name: INLAY_TRACES
  value: "true"
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .ratio | quote }}
{{- with .ca }}
- name: OTEL_EXPORTER_OTLP_CERTIFICATE
  value: {{ . | quote }}
{{- end }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ $root.Release.Namespace }},k8s.pod.name=$(POD_NAME)
{{- end }}
{{- end }}
{{- range $name, $file := include "inlay.files" $root | fromYaml }}
{{- if index $root.Values.files $name }}
- name: {{ $file.setting }}
  value: /etc/inlay/{{ $file.file }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "inlay.envFrom" -}}
- configMapRef:
    name: {{ include "inlay.fullname" .root }}-settings
{{- end -}}

{{/* (dict "root" $ "component" ... "readOnlyImages" true) */}}
{{- define "inlay.volumeMounts" -}}
{{- $root := .root -}}
- name: home
  mountPath: /var/lib/inlay
- name: tmp
  mountPath: /tmp
- name: images
  mountPath: /var/lib/inlay-images
  {{- if .readOnlyImages }}
  readOnly: true
  {{- end }}
- name: files
  mountPath: /etc/inlay
  readOnly: true
- name: database
  mountPath: /run/secrets/inlay/database
  readOnly: true
- name: redis
  mountPath: /run/secrets/inlay/redis
  readOnly: true
{{- range $name, $secret := include "inlay.secrets" . | fromYaml }}
- name: secret-{{ $name }}
  mountPath: /run/secrets/inlay/{{ $name }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "inlay.volumes" -}}
{{- $root := .root -}}
- name: home
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: images
  persistentVolumeClaim:
    claimName: {{ include "inlay.imagesClaim" $root }}
- name: files
  configMap:
    name: {{ include "inlay.fullname" $root }}-files
- name: database
  secret:
    secretName: {{ include "inlay.databaseSecret" $root }}
    defaultMode: 0440
    items:
      - key: {{ include "inlay.databaseKey" $root }}
        path: {{ include "inlay.databaseKey" $root }}
- name: redis
  secret:
    secretName: {{ include "inlay.redisSecret" $root }}
    defaultMode: 0440
    items:
      - key: {{ $root.Values.redis.brokerKey }}
        path: {{ $root.Values.redis.brokerKey }}
      {{- if ne $root.Values.redis.progressKey $root.Values.redis.brokerKey }}
      - key: {{ $root.Values.redis.progressKey }}
        path: {{ $root.Values.redis.progressKey }}
      {{- end }}
{{- range $name, $secret := include "inlay.secrets" . | fromYaml }}
- name: secret-{{ $name }}
  secret:
    secretName: {{ $secret.secret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* Liveness and readiness at a named port. */}}
{{- define "inlay.probes" -}}
livenessProbe:
  httpGet:
    path: /livez
    port: {{ .port }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ .port }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}
