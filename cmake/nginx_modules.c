/* What nginx's own build generates as objs/ngx_http_apikey_module_modules.c: the three symbols nginx looks for in a
 * dynamic module. In C, because ngx_module_names is an array of char * to literals. The order is that of an
 * HTTP_AUX_FILTER module: before the copy filter. */
#include <ngx_config.h>
#include <ngx_core.h>

#define APIKEY_EXPORT __attribute__((visibility("default")))

extern ngx_module_t ngx_http_apikey_module;

APIKEY_EXPORT ngx_module_t *ngx_modules[] = { &ngx_http_apikey_module, NULL };
APIKEY_EXPORT char *ngx_module_names[] = { "ngx_http_apikey_module", NULL };
APIKEY_EXPORT char *ngx_module_order[] = { "ngx_http_apikey_module", "ngx_http_copy_filter_module", NULL };
