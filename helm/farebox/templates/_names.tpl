{{- define "farebox.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for the suffixes that objects and pods of it get. */}}
{{- define "farebox.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What pods of this release have in common; never changes over upgrades. */}}
{{- define "farebox.releaseLabels" -}}
app.kubernetes.io/name: {{ include "farebox.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The pods that take requests. */}}
{{- define "farebox.selectorLabels" -}}
{{ include "farebox.releaseLabels" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "farebox.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "farebox.objectLabels" -}}
{{ include "farebox.releaseLabels" . }}
{{ include "farebox.labels" . }}
{{- end -}}

{{- define "farebox.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "farebox.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "farebox.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* LeaderWorkerSet makes a headless Service of its own name, so it can't have the name of ours. */}}
{{- define "farebox.workloadName" -}}
{{- include "farebox.fullname" . }}{{ if .Values.multiNode.enabled }}-pool{{ end -}}
{{- end -}}

{{- define "farebox.scaleTarget" -}}
{{- if .Values.multiNode.enabled -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
{{- else -}}
apiVersion: apps/v1
kind: Deployment
{{- end }}
name: {{ include "farebox.workloadName" . }}
{{- end -}}

{{- define "farebox.scaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}true{{ end -}}
{{- end -}}

{{/* Whether the ledger is in PostgreSQL. */}}
{{- define "farebox.sharedDatabase" -}}
{{- if or .Values.database.existingSecret .Values.database.url }}true{{ end -}}
{{- end -}}

{{- define "farebox.secretName" -}}
{{ include "farebox.fullname" . }}
{{- end -}}
