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

{{- /* What the configuration sets `key` of `table` to, by a line of config or a variable of env; empty where it does not. */ -}}
{{- define "osproxy.set" -}}
{{- $wanted := printf "%s.%s" .table .key -}}
{{- $table := "" -}}
{{- $found := "" -}}
{{- range splitList "\n" .values.config -}}
{{- $line := trim . -}}
{{- if hasPrefix "[" $line -}}
{{- $table = regexReplaceAll `^\[+([^\]]*)\].*$` $line "${1}" | nospace -}}
{{- else if contains "=" $line -}}
{{- $name := splitList "=" $line | first | nospace -}}
{{- if eq $wanted (trimPrefix "." (printf "%s.%s" $table $name)) -}}
{{- $found = regexReplaceAll `^[^=]*=\s*["']?([^"'#]*).*$` $line "${1}" | trim -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $variable := printf "OSPROXY_%s" ($wanted | replace "." "__" | upper) -}}
{{- range .values.env -}}
{{- if eq .name $variable -}}
{{- $found = .value | default "taken from elsewhere" -}}
{{- end -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{- /* What would start and then not work is refused here. */ -}}
{{- define "osproxy.check" -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.cluster) -}}
{{- fail "replicaCount: more than one node needs cluster=true and a server database" -}}
{{- end -}}
{{- if and .Values.cluster (not .Values.existingSecret) -}}
{{- fail "existingSecret: a cluster needs a secret with OSPROXY_META__URL and OSPROXY_MASTER_KEY" -}}
{{- end -}}
{{- if .Values.cluster -}}
{{- $placement := include "osproxy.set" (dict "values" .Values "table" "storage" "key" "placement") | default "local" -}}
{{- $service := include "osproxy.set" (dict "values" .Values "table" (printf "backend.%s" $placement) "key" "service") -}}
{{- if or (has $service (list "fs" "memory")) (and (eq $placement "local") (not $service)) -}}
{{- fail (printf "config: blobs at %q would be on a volume that goes with its node: name a [storage] placement at a service that every node reaches, as examples/cluster.yaml does" $placement) -}}
{{- end -}}
{{- end -}}
{{- $drain := include "osproxy.set" (dict "values" .Values "table" "http" "key" "drain_timeout_seconds") | default "30" | int -}}
{{- $least := add .Values.drainDelaySeconds $drain 15 -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "terminationGracePeriodSeconds: expected at least %d: drainDelaySeconds (%d), http.drain_timeout_seconds (%d), and 15 for what a node does after" $least (int .Values.drainDelaySeconds) $drain) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: expected the name that clients use" -}}
{{- end -}}
{{- end -}}
