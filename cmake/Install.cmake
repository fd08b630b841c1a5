# What `cmake --install` puts where, in four components: module, keyloader, systemd, documentation. DESTDIR and --prefix hold
# for all of it; what nginx itself looks for stands in nginx's own folders, which --prefix does not move.
include(GNUInstallDirs)

# What the installed nginx says; an nginx that is for another machine is named by the cache variables below.
find_program(NGINX_EXECUTABLE nginx PATHS /usr/sbin /usr/local/sbin)
set(nginx_says "")
if(NGINX_EXECUTABLE)
  execute_process(COMMAND ${NGINX_EXECUTABLE} -V ERROR_VARIABLE nginx_says OUTPUT_QUIET)
endif()
set(modules_dir /usr/lib/nginx/modules)
if(nginx_says MATCHES "--modules-path=(/[^ \n]+)")
  set(modules_dir ${CMAKE_MATCH_1})
endif()
set(conf_dir /etc/nginx)
if(nginx_says MATCHES "--conf-path=(/[^ \n]+)/[^/ \n]+")
  set(conf_dir ${CMAKE_MATCH_1})
endif()
set(APIKEY_NGINX_MODULES_DIR ${modules_dir} CACHE PATH "Where nginx looks for dynamic modules (default: what nginx -V says)")
set(APIKEY_NGINX_CONF_DIR ${conf_dir} CACHE PATH "Folder of nginx.conf (default: what nginx -V says)")
set(has_debian_layout OFF)
if(IS_DIRECTORY ${APIKEY_NGINX_CONF_DIR}/modules-enabled)
  set(has_debian_layout ON)
endif()
option(APIKEY_DEBIAN_LAYOUT "Install the load_module line the way Debian's packages of modules do" ${has_debian_layout})
set(modules_available /usr/share/nginx/modules-available)

# What is installed is stripped, with and without --strip. It comes first, and holds for every component.
install(CODE "set(CMAKE_INSTALL_DO_STRIP TRUE)" ALL_COMPONENTS)

if(APIKEY_MODULE)
  install(TARGETS ngx_http_apikey_module LIBRARY DESTINATION ${APIKEY_NGINX_MODULES_DIR}
    PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ COMPONENT module)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/conf/snippets/ DESTINATION ${APIKEY_NGINX_CONF_DIR}/snippets
    COMPONENT module)
  if(APIKEY_DEBIAN_LAYOUT)
    install(FILES packaging/nginx/50-mod-http-apikey.conf DESTINATION ${modules_available} RENAME mod-http-apikey.conf
      COMPONENT module)
    set(enabled ${APIKEY_NGINX_CONF_DIR}/modules-enabled)
    install(CODE "
      file(MAKE_DIRECTORY \"\$ENV{DESTDIR}${enabled}\")
      file(CREATE_LINK ${modules_available}/mod-http-apikey.conf
        \"\$ENV{DESTDIR}${enabled}/50-mod-http-apikey.conf\" SYMBOLIC)
      list(APPEND CMAKE_INSTALL_MANIFEST_FILES ${enabled}/50-mod-http-apikey.conf)
      message(STATUS \"Link: \$ENV{DESTDIR}${enabled}/50-mod-http-apikey.conf\")" COMPONENT module)
  endif()
endif()

# Completions are made by the program they are for.
set(completions "")
foreach(shell bash zsh fish)
  set(script ${PROJECT_BINARY_DIR}/completion/keyloader.${shell})
  add_custom_command(OUTPUT ${script} DEPENDS keyloader
    COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/completion
    COMMAND keyloader completion ${shell} > ${script} VERBATIM)
  list(APPEND completions ${script})
endforeach()
add_custom_target(completion ALL DEPENDS ${completions})

install(TARGETS keyloader RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT keyloader)
install(FILES docs/keyloader.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT keyloader)
set(shared ${CMAKE_INSTALL_DATADIR})
foreach(place "bash ${shared}/bash-completion/completions keyloader" "zsh ${shared}/zsh/site-functions _keyloader"
    "fish ${shared}/fish/vendor_completions.d keyloader.fish")
  separate_arguments(place)
  list(GET place 0 shell)
  list(GET place 1 folder)
  list(GET place 2 name)
  install(FILES ${PROJECT_BINARY_DIR}/completion/keyloader.${shell} DESTINATION ${folder} RENAME ${name}
    COMPONENT keyloader)
endforeach()

# Units name keyloader with its whole path, which only the installation knows: it may be given another prefix.
set(units lib/systemd/system)
install(CODE "
  set(KEYLOADER \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/keyloader\")
  configure_file(${PROJECT_SOURCE_DIR}/packaging/systemd/keyloader-usage-collect.service.in
    ${PROJECT_BINARY_DIR}/systemd/keyloader-usage-collect.service @ONLY)" COMPONENT systemd)
install(FILES ${PROJECT_BINARY_DIR}/systemd/keyloader-usage-collect.service packaging/systemd/keyloader-usage-collect.timer
  DESTINATION ${units} COMPONENT systemd)
install(FILES packaging/systemd/nginx-apikey.conf DESTINATION ${units}/nginx.service.d RENAME apikey.conf COMPONENT systemd)
install(FILES packaging/systemd/sysusers-apikey.conf DESTINATION lib/sysusers.d RENAME apikey.conf COMPONENT systemd)

install(FILES packaging/nginx/apikey.conf packaging/nginx/orders.conf DESTINATION ${CMAKE_INSTALL_DOCDIR}/nginx
  COMPONENT documentation)
install(DIRECTORY conf/examples DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT documentation)
