{{- define "osproxy.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "osproxy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "osproxy.labels" -}}
{{ include "osproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* What would start and then not work is refused here. */ -}}
{{- define "osproxy.check" -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.cluster) -}}
{{- fail "replicaCount: more than one node needs cluster=true and a server database" -}}
{{- end -}}
{{- if and .Values.cluster (not .Values.existingSecret) -}}
{{- fail "existingSecret: a cluster needs a secret with OSPROXY_META__URL and OSPROXY_MASTER_KEY" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: expected the name that clients use" -}}
{{- end -}}
{{- end -}}
