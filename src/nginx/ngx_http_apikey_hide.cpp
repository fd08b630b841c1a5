// Hiding: header lines are taken out of the list, cookies and queries are rebuilt without the key, and the bytes that
// held it are overwritten, so that a variable that was read before shows asterisks.
// Called in the preaccess phase, or by the first variable that needs the key. Must leave alone what is not a key of
// ours in a source that others share, and memory that is not the client's (arguments may come from the configuration).
#include "ngx_http_apikey_hide.hpp"

#include <array>

#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "ngx_http_apikey_header_list.hpp"
#include "ngx_http_apikey_query.hpp"
#include "ngx_http_apikey_request.hpp"

namespace apikey::nginx {
namespace {

void overwrite(const ngx_str_t& text) noexcept {
  if (text.len > 0) {
    ngx_memset(text.data, '*', text.len);
  }
}

// Calls `act` for r and each of its parents. RETURNS: false as soon as `act` does.
template <typename Act>
bool up_to_main(ngx_http_request_t* r, Act act) noexcept {
  for (ngx_http_request_t* each = r; each != nullptr; each = each->parent) {
    if (!act(each)) {
      return false;
    }
    if (each == r->main) {
      break;
    }
  }
  return true;
}

bool hide_line(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept {
  if (!up_to_main(r, [line](ngx_http_request_t* each) noexcept { return remove_header(each, line); })) {
    return false;
  }
  overwrite(line->value);
  return true;
}

bool hide_lines(ngx_http_request_t* r, std::string_view name) noexcept {
  while (ngx_table_elt_t* line = find_header(r->main, name)) {
    if (!hide_line(r, line)) {
      return false;
    }
  }
  return true;
}

bool is_ours(Found found) noexcept { return found == Found::key || found == Found::malformed; }

bool hide_authorization(ngx_http_request_t* r, const Source& source, Format format) noexcept {
  ngx_table_elt_t* line = find_header(r->main, "authorization");
  if (line == nullptr) {
    return true;
  }
  std::array<char, kBasicBufferSize> buffer;
  const bool is_credential = is_ours(judge_authorization(source, format, *line, buffer).found);
  wipe(std::span<char>(buffer));
  if (!is_credential) {
    return true;
  }
  // auth_basic and $remote_user keep what they decoded.
  up_to_main(r, [kind = source.kind](ngx_http_request_t* each) noexcept {
    ngx_http_headers_in_t& headers = each->headers_in;
    if (kind == SourceKind::basic && headers.user.len > 0) {
      overwrite(headers.user);
      overwrite(headers.passwd);
      headers.user.len = 0;
      ngx_str_null(&headers.passwd);
    }
    return true;
  });
  return hide_line(r, line);
}

// Rebuilds a line that others share without what is ours. RETURNS: false without memory.
bool cut_line(ngx_http_request_t* r, ngx_table_elt_t* line, const Source& source, Format format) noexcept {
  const SharedLine shared = shared_line(source.kind);
  const std::string_view old = view(line->value);
  auto* memory = static_cast<u_char*>(ngx_pnalloc(r->pool, old.size() + 1));
  if (memory == nullptr) {
    return false;
  }
  u_char* end = memory;
  const char* copied = old.data();
  std::string_view rest = old;
  for (NamedValue found; shared.next(rest, view(source.name), found);) {
    if (is_ours(judge_credential(source.kind, format, found.value))) {
      end = ngx_cpymem(end, copied, found.whole.data() - copied);
      copied = found.whole.data() + found.whole.size();
      ngx_memset(line->value.data + (found.value.data() - old.data()), '*', found.value.size());
    }
  }
  if (copied == old.data()) {
    return true;
  }
  end = ngx_cpymem(end, copied, old.data() + old.size() - copied);
  // What is left may end in the separator of a member that is gone.
  while (end > memory && shared.separators.find(static_cast<char>(end[-1])) != std::string_view::npos) {
    --end;
  }
  *end = '\0';
  line->value = {static_cast<std::size_t>(end - memory), memory};
  return line->value.len > 0 || hide_line(r, line);
}

bool hide_in_lines(ngx_http_request_t* r, const Source& source, Format format) noexcept {
  // A line that becomes empty is taken out: the next one is looked for before.
  HeaderLines lines(r->main, shared_line(source.kind).header);
  for (ngx_table_elt_t* line = lines.next(); line != nullptr;) {
    ngx_table_elt_t* next = lines.next();
    if (!cut_line(r, line, source, format)) {
      return false;
    }
    line = next;
  }
  return true;
}

bool hide_argument(ngx_http_request_t* r, std::string_view name) noexcept {
  return up_to_main(r, [name](ngx_http_request_t* each) noexcept {
    const ngx_str_t old_uri = each->unparsed_uri;
    const ngx_str_t old_line = each->request_line;
    const std::string_view uri_query = query_of_uri(view(old_uri));
    const std::string_view line_query = query_of_request_line(view(old_line));
    if (!edit_query(each->pool, each->args, view(each->args), name, QueryEdit::cut) ||
        !edit_query(each->pool, each->unparsed_uri, uri_query, name, QueryEdit::cut) ||
        !edit_query(each->pool, each->request_line, line_query, name, QueryEdit::cut)) {
      return false;
    }
    // In HTTP/1 both are views of one buffer; the second pass then finds asterisks.
    overwrite_values(old_uri, uri_query, name);
    overwrite_values(old_line, line_query, name);
    return true;
  });
}

bool hide_source(ngx_http_request_t* r, const Source& source, Format format) noexcept {
  switch (source.kind) {
    case SourceKind::header:
      return hide_lines(r, view(source.name));
    case SourceKind::scheme:
    case SourceKind::bearer:
    case SourceKind::basic:
      return hide_authorization(r, source, format);
    case SourceKind::cookie:
    case SourceKind::protocol:
      return hide_in_lines(r, source, format);
    case SourceKind::query:
      return hide_argument(r, view(source.name));
    case SourceKind::variable:
      break;
  }
  return true;
}

}  // namespace

ngx_int_t hide_credential(ngx_http_request_t* r, const LocConf& conf) noexcept {
  for (const Source& source : sources_of(conf)) {
    if (!hide_source(r, source, static_cast<Format>(conf.format))) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace apikey::nginx
