{{/* A container's image and rights, in every pod of the chart. */}}
{{- define "farebox.containerBase" -}}
image: {{ include "farebox.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{- define "farebox.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if gt (int .Values.gpu.count) 0 -}}
{{- $gpus := dict .Values.gpu.resourceName (toString (int .Values.gpu.count)) -}}
{{- $resources = mergeOverwrite $resources (dict "limits" (mergeOverwrite (default dict $resources.limits) $gpus)) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{- define "farebox.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
{{ toYaml (omit . "path") }}
{{- end -}}

{{/* Where and how pods run: leader, workers and replicas alike. `enableServiceLinks: false` matters: for a Service
named farebox, Kubernetes would set FAREBOX_PORT and FAREBOX_SERVICE_HOST. */}}
{{- define "farebox.podBase" -}}
serviceAccountName: {{ include "farebox.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "farebox.graceSeconds" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Every pod's volumes: the root file system is read-only. */}}
{{- define "farebox.volumes" -}}
- name: tmp
  emptyDir: {}
- name: cache
  emptyDir:
    {{- with .Values.scratchSize }}
    sizeLimit: {{ . }}
    {{- else }} {}
    {{- end }}
{{- if .Values.sharedMemory.enabled }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.sharedMemory.size }}
{{- end }}
- name: models
  {{- if or .Values.modelCache.persistent .Values.modelCache.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-models" (include "farebox.fullname" .)) .Values.modelCache.existingClaim }}
  {{- else }}
  emptyDir:
    {{- with .Values.scratchSize }}
    sizeLimit: {{ . }}
    {{- else }} {}
    {{- end }}
  {{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Those of the gateway alone. */}}
{{- define "farebox.gatewayVolumes" -}}
{{- if .Values.models }}
- name: cards
  configMap:
    name: {{ include "farebox.fullname" . }}-cards
{{- end }}
{{- if not (include "farebox.sharedDatabase" .) }}
- name: ledger
  {{- if .Values.ledger.persistent }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-ledger" (include "farebox.fullname" .)) .Values.ledger.existingClaim }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "farebox.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: cache
  mountPath: /cache
{{- if .Values.sharedMemory.enabled }}
- name: shm
  mountPath: /dev/shm
{{- end }}
- name: models
  mountPath: {{ .Values.modelCache.mountPath }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "farebox.topologySpread" -}}
{{- $selector := dict "matchLabels" (include "farebox.selectorLabels" . | fromYaml) -}}
{{- range .Values.topologySpreadConstraints }}
- {{ toYaml (merge (deepCopy .) (dict "labelSelector" $selector)) | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{- define "farebox.gatewayContainer" -}}
name: gateway
{{ include "farebox.containerBase" . }}
args:
  - serve
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
env:
  {{- include "farebox.env" . | nindent 2 }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: http
    containerPort: 8000
startupProbe:
  {{- include "farebox.probe" .Values.probes.startup | nindent 2 }}
livenessProbe:
  {{- include "farebox.probe" .Values.probes.liveness | nindent 2 }}
readinessProbe:
  {{- include "farebox.probe" .Values.probes.readiness | nindent 2 }}
{{- if gt (int .Values.shutdown.preStopSeconds) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int .Values.shutdown.preStopSeconds }}
{{- end }}
resources:
  {{- include "farebox.resources" . | nindent 2 }}
volumeMounts:
  {{- include "farebox.mounts" . | nindent 2 }}
  {{- if .Values.models }}
  - name: cards
    mountPath: /etc/farebox
    readOnly: true
  {{- end }}
  {{- if not (include "farebox.sharedDatabase" .) }}
  - name: ledger
    mountPath: /var/lib/farebox
  {{- end }}
{{- end -}}

{{/* The pod that takes requests: a replica of the Deployment, or the leader of a group. Its labels hold no version:
an upgrade of the chart alone must not load every model again. */}}
{{- define "farebox.gatewayPod" -}}
metadata:
  labels:
    {{- include "farebox.selectorLabels" . | nindent 4 }}
    {{- with mergeOverwrite (deepCopy .Values.commonLabels) .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/cards: {{ include "farebox.cards" . | sha256sum }}
    checksum/secret: {{ include "farebox.secretData" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "farebox.podBase" . | nindent 2 }}
  {{- with include "farebox.topologySpread" . | trim }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  volumes:
    {{- include "farebox.volumes" . | nindent 4 }}
    {{- with include "farebox.gatewayVolumes" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
  containers:
    - {{- include "farebox.gatewayContainer" . | nindent 6 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The other pods of a group: vLLM's own headless mode. They outlive the leader's drain: when they stop, so does
every running request. */}}
{{- define "farebox.workerPod" -}}
metadata:
  labels:
    {{- include "farebox.releaseLabels" . | nindent 4 }}
    app.kubernetes.io/component: worker
    {{- with mergeOverwrite (deepCopy .Values.commonLabels) .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "farebox.podBase" . | nindent 2 }}
  volumes:
    {{- include "farebox.volumes" . | nindent 4 }}
  containers:
    - name: worker
      {{- include "farebox.containerBase" . | nindent 6 }}
      command: [vllm]
      args:
        {{- include "farebox.workerArgs" . | nindent 8 }}
      env:
        {{- include "farebox.withExtraEnv" (dict "root" . "own" (include "farebox.workerEnv" .)) | nindent 8 }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ addf .Values.shutdown.preStopSeconds .Values.shutdown.drainSeconds 10 | ceil | int }}
      resources:
        {{- include "farebox.resources" . | nindent 8 }}
      volumeMounts:
        {{- include "farebox.mounts" . | nindent 8 }}
{{- end -}}
