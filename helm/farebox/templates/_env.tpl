{{/* One variable from a secret: `existing` names the user's, else the chart's holds `inline`. */}}
{{- define "farebox.secretEnv" -}}
{{- if and (or .existing .inline) .key }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ default (include "farebox.secretName" .root) .existing }}
      key: {{ .key }}
{{- end }}
{{- end -}}

{{- define "farebox.databaseEnv" -}}
{{- with .Values.database }}
{{- include "farebox.secretEnv" (dict "root" $ "name" "FAREBOX_DATABASE_URL" "existing" .existingSecret "inline" .url "key" (ternary .existingSecretKey "database-url" (ne .existingSecret ""))) }}
{{- end }}
{{- end -}}

{{/* Homes for what is written: the root file system is read-only, and the user may be unknown to the image. */}}
{{- define "farebox.homeEnv" }}
- name: HOME
  value: /cache
- name: USER
  value: farebox
- name: XDG_CACHE_HOME
  value: /cache
- name: HF_HOME
  value: {{ .Values.modelCache.mountPath }}
{{- end -}}

{{- define "farebox.hubEnv" -}}
{{- with .Values.hub }}
{{- include "farebox.secretEnv" (dict "root" $ "name" "HF_TOKEN" "existing" .existingSecret "inline" .token "key" (ternary .existingSecretKey "hub-token" (ne .existingSecret ""))) }}
{{- end }}
{{- end -}}

{{/* A pod's variables with `extraEnv` behind them: what it names itself, it names alone. */}}
{{- define "farebox.withExtraEnv" -}}
{{- $extra := list -}}
{{- range .root.Values.extraEnv }}{{ $extra = append $extra .name }}{{ end -}}
{{- $variables := list -}}
{{- range fromYamlArray .own -}}
{{- if not (has .name $extra) -}}
{{- $variables = append $variables . -}}
{{- else if hasPrefix "FAREBOX_" .name -}}
{{- fail (printf "extraEnv sets %s, which the chart sets itself; use its value in values.yaml, or `settings`." .name) -}}
{{- end -}}
{{- end -}}
{{ toYaml (concat $variables .root.Values.extraEnv) }}
{{- end -}}

{{- define "farebox.env" -}}
{{ include "farebox.withExtraEnv" (dict "root" . "own" (include "farebox.ownEnv" .)) }}
{{- end -}}

{{- define "farebox.ownEnv" -}}
- name: FAREBOX_HOST
  value: {{ default "0.0.0.0" .Values.settings.host | quote }}
- name: FAREBOX_PORT
  value: "8000"
- name: FAREBOX_SHUTDOWN_SECONDS
  value: {{ .Values.shutdown.drainSeconds | quote }}
{{- if not .Values.console.enabled }}
- name: FAREBOX_CONSOLE
  value: "false"
{{- else if not .Values.console.catalogPublic }}
- name: FAREBOX_CONSOLE_CATALOG_PUBLIC
  value: "false"
{{- end }}
{{- with include "farebox.served" . }}
- name: FAREBOX_MODELS
  value: {{ . | quote }}
{{- end }}
{{- if .Values.models }}
- name: FAREBOX_CARDS
  value: /etc/farebox/cards.toml
{{- end }}
{{- if not (include "farebox.sharedDatabase" .) }}
- name: FAREBOX_DATA_DIR
  value: /var/lib/farebox
{{- end }}
{{- with include "farebox.engineOptions" . }}
- name: FAREBOX_ENGINE
  value: {{ . | quote }}
{{- end }}
{{- include "farebox.databaseEnv" . }}
{{- with .Values.redis }}
{{- include "farebox.secretEnv" (dict "root" $ "name" "FAREBOX_REDIS_URL" "existing" .existingSecret "inline" .url "key" (ternary .existingSecretKey "redis-url" (ne .existingSecret ""))) }}
{{- end }}
{{- with .Values.webhook }}
{{- include "farebox.secretEnv" (dict "root" $ "name" "FAREBOX_WEBHOOK_SECRET" "existing" .existingSecret "inline" .secret "key" (ternary .existingSecretKey "webhook-secret" (ne .existingSecret ""))) }}
{{- end }}
{{- with .Values.keys }}
{{- include "farebox.secretEnv" (dict "root" $ "name" "FAREBOX_BOOTSTRAP_KEY" "existing" .existingSecret "inline" .bootstrapKey "key" (ternary .bootstrapKeyName "bootstrap-key" (ne .existingSecret ""))) }}
{{- include "farebox.secretEnv" (dict "root" $ "name" "FAREBOX_ADMIN_KEY" "existing" .existingSecret "inline" .adminKey "key" (ternary .adminKeyName "admin-key" (ne .existingSecret ""))) }}
{{- end }}
{{- range $name, $value := omit .Values.settings "engine" "host" }}
{{- if not (kindIs "invalid" $value) }}
- name: FAREBOX_{{ upper $name }}
  value: {{ include "farebox.text" $value | quote }}
{{- end }}
{{- end }}
{{- include "farebox.hubEnv" . }}
{{- include "farebox.homeEnv" . }}
{{- if .Values.multiNode.enabled }}
{{- include "farebox.nodeEnv" . }}
{{- end }}
{{- end -}}

{{/* YAML's numbers arrive as floats: 4194304 must not become 4.194304e+06. */}}
{{- define "farebox.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- define "farebox.served" -}}
{{- if .Values.serve -}}
{{ join "," .Values.serve }}
{{- else -}}
{{- $names := list }}{{ range .Values.models }}{{ $names = append $names .name }}{{ end -}}
{{ join "," $names }}
{{- end -}}
{{- end -}}

{{/* The model that `helm test` and NOTES.txt call. */}}
{{- define "farebox.firstModel" -}}
{{- include "farebox.served" . | splitList "," | first | default "farebox/demo" -}}
{{- end -}}

{{/* FAREBOX_ENGINE: the operator's options, and in a group of pods this node's place in it. */}}
{{- define "farebox.engineOptions" -}}
{{- $options := deepCopy (default dict .Values.settings.engine) -}}
{{- if .Values.multiNode.enabled -}}
{{- $options = mergeOverwrite $options (dict "distributed_executor_backend" "mp" "nnodes" .Values.multiNode.nodes "node_rank" 0 "master_addr" "$(LWS_LEADER_ADDRESS)" "master_port" .Values.multiNode.masterPort) -}}
{{- end -}}
{{- if $options }}{{ toJson $options }}{{ end -}}
{{- end -}}

{{- define "farebox.workerEnv" -}}
{{- include "farebox.hubEnv" . }}
{{- include "farebox.homeEnv" . }}
{{- include "farebox.nodeEnv" . }}
{{- end -}}

{{/* The variables of the migration, whose Secret is named. */}}
{{- define "farebox.migrationEnv" -}}
- name: FAREBOX_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ default .secret .root.Values.database.existingSecret }}
      key: {{ ternary .root.Values.database.existingSecretKey "url" (ne .root.Values.database.existingSecret "") }}
{{- include "farebox.homeEnv" .root }}
{{- end -}}

{{- define "farebox.nodeEnv" }}
- name: VLLM_HOST_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: VLLM_WORKER_MULTIPROC_METHOD
  value: spawn
{{- end -}}
