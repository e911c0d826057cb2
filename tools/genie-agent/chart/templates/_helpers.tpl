{{- define "genie-agent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "genie-agent.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $name = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- default $name .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "genie-agent.selectorLabels" -}}
app.kubernetes.io/name: {{ include "genie-agent.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "genie-agent.labels" -}}
{{ include "genie-agent.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "genie-agent.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "genie-agent.fullname" .) "default") .Values.serviceAccount.name }}
{{- end }}

{{- define "genie-agent.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* Every file that comes from a Secret or a ConfigMap of the user's own: [{volume, folder, file, kind, name, key}]. Each is
       a volume mounted whole, never by subPath, which would not follow a rotation. What takes the files looks them up by volume. */}}
{{- define "genie-agent.mounts" -}}
{{- $mounts := list }}
{{- $sources := list
  (dict "volume" "agent-key" "folder" "key" "from" .Values.agentKey)
  (dict "volume" "platform-ca" "folder" "ca" "from" .Values.certificateAuthority)
  (dict "volume" "signing-key" "folder" "signing" "from" .Values.commit.signingKey) }}
{{- range $i, $host := .Values.gitHosts }}
{{- $folder := printf "git/%s" ($host.host | replace ":" "_") }}
{{- $token := merge (dict) $host.token (dict "key" "token") }}
{{- $ca := merge (dict) (default (dict) $host.certificateAuthority) (dict "key" "ca.crt") }}
{{- $sources = concat $sources (list
  (dict "volume" (printf "git-token-%d" $i) "folder" (printf "%s/token" $folder) "from" $token)
  (dict "volume" (printf "git-ca-%d" $i) "folder" (printf "%s/ca" $folder) "from" $ca)) }}
{{- end }}
{{- range $sources }}
{{- $folder := printf "/run/secrets/genie-agent/%s" .folder }}
{{- $mount := dict "volume" .volume "folder" $folder "key" .from.key "file" (printf "%s/%s" $folder .from.key) }}
{{- if .from.existingSecret }}
{{- $mounts = append $mounts (merge $mount (dict "kind" "secret" "name" .from.existingSecret)) }}
{{- else if .from.existingConfigMap }}
{{- $mounts = append $mounts (merge $mount (dict "kind" "configMap" "name" .from.existingConfigMap)) }}
{{- end }}
{{- end }}
{{- toJson $mounts }}
{{- end }}

{{- /* genie-agent's configuration file. */}}
{{- define "genie-agent.config" -}}
{{- $files := dict }}
{{- range include "genie-agent.mounts" . | fromJsonArray }}{{ $_ := set $files .volume .file }}{{ end }}
{{- $endpoint := required "endpoint is missing: the platform's task channel, HOST:PORT" .Values.endpoint }}
{{- $key := required "agentKey is missing: agentKey.existingSecret names the Secret with the agent's key" (coalesce (get $files "agent-key") .Values.agentKey.file) }}
{{- $config := dict "endpoint" $endpoint "key-file" $key "log-level" .Values.logLevel
  "state-directory" "/var/lib/genie-agent" "cache-directory" "/var/cache/genie-agent"
  "cache-bytes" (mul .Values.cacheGibibytes 1024 1024 1024) "shutdown-grace-ms" (mul .Values.shutdownGraceSeconds 1000)
  "command-slots" .Values.slots.commands "pull-request-slots" .Values.slots.pullRequests }}
{{- with get $files "platform-ca" }}{{ $_ := set $config "ca-file" . }}{{ end }}
{{- with .Values.agentLabels }}{{ $_ := set $config "labels" . }}{{ end }}
{{- with .Values.commit.authorName }}{{ $_ := set $config "author-name" . }}{{ end }}
{{- with .Values.commit.authorEmail }}{{ $_ := set $config "author-email" . }}{{ end }}
{{- with get $files "signing-key" }}{{ $_ := set $config "signing-key-file" . }}{{ end }}
{{- $seen := dict }}
{{- $hosts := list }}
{{- range $i, $value := .Values.gitHosts }}
{{- if hasKey $seen $value.host }}{{ fail (printf "gitHosts has %s twice" $value.host) }}{{ end }}
{{- $_ := set $seen $value.host true }}
{{- $host := dict "host" $value.host "forge" $value.forge }}
{{- with $value.apiUrl }}{{ $_ := set $host "api-url" . }}{{ end }}
{{- with $value.user }}{{ $_ := set $host "user" . }}{{ end }}
{{- if $value.allowHttp }}{{ $_ := set $host "allow-http" true }}{{ end }}
{{- with $value.token.variable }}{{ $_ := set $host "token-variable" . }}{{ end }}
{{- with coalesce (get $files (printf "git-token-%d" $i)) $value.token.file }}{{ $_ := set $host "token-file" . }}{{ end }}
{{- with get $files (printf "git-ca-%d" $i) }}{{ $_ := set $host "ca-file" . }}{{ end }}
{{- $hosts = append $hosts $host }}
{{- end }}
{{- with $hosts }}{{ $_ := set $config "git-hosts" . }}{{ end }}
{{- $commands := dict }}
{{- range $name, $value := .Values.commands }}
{{- $command := omit $value "moreArguments" }}
{{- with $value.moreArguments }}{{ $_ := set $command "more-arguments" . }}{{ end }}
{{- $_ := set $commands $name $command }}
{{- end }}
{{- with $commands }}{{ $_ := set $config "commands" . }}{{ end }}
{{- mergeOverwrite $config (deepCopy .Values.extraConfig) | toPrettyJson }}
{{- end }}

{{- /* The ports that the platform, the git hosts and the proxy are reached on, each once. */}}
{{- define "genie-agent.ports" -}}
{{- $ports := list (regexFind "[0-9]+$" .Values.endpoint) }}
{{- range .Values.gitHosts }}
{{- $fallback := default false .allowHttp | ternary "80" "443" }}
{{- $ports = append $ports (regexFind ":[0-9]+$" .host | trimPrefix ":" | default $fallback) }}
{{- with .apiUrl }}
{{- $ports = append $ports (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default (hasPrefix "http:" . | ternary "80" "443")) }}
{{- end }}
{{- end }}
{{- with .Values.proxy.https }}
{{- $ports = append $ports (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default (hasPrefix "http:" . | ternary "80" "443")) }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{- /* Refuses values in which a token or private key stands, without repeating it. */}}
{{- define "genie-agent.noSecrets" -}}
{{- if regexMatch "\\b(dga_|dgk_|gh[oprsu]_|github_pat_|glpat-)[A-Za-z0-9_]|PRIVATE KEY-----|://[^/@\\s\"]+:[^/@\\s\"]+@" (toJson .Values) }}
{{- fail "a key, token or password stands in the values: put it into a Secret and name that (existingSecret, extraEnvFrom)" }}
{{- end }}
{{- end }}
